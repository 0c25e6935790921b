"""One run: its configuration and its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
from jax import Array

from jaxgpt.config import (
    added_later,
    content_hash,
    decode,
    encode,
    merge,
    override,
    parse_overrides,
    read_yaml,
    unhashed,
    write_yaml,
)
from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.sources.text import TextDataConfig
from jaxgpt.errors import CheckpointError, ConfigError, UserError
from jaxgpt.files import write_atomic
from jaxgpt.models.base import ModelConfig
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.parallel.mesh import MeshConfig
from jaxgpt.train.groups import GroupConfig
from jaxgpt.train.optimizer.adamw import AdamWConfig
from jaxgpt.train.optimizer.base import OptimizerConfig
from jaxgpt.train.schedule import ConstantConfig, CosineConfig, ScheduleConfig
from jaxgpt.train.surgery import StartConfig
from jaxgpt.train.tracker.base import TrackerConfig
from jaxgpt.train.tracker.tensorboard import TensorBoardConfig

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    steps: int = 1000  # 0: none, for a run whose weights are given (`start`)
    batch_size: int = 16  # sequences per step
    accumulation: int = 1  # parts of a batch, one after the other
    learning_rate: float = 2e-3  # the schedule's peak
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = CosineConfig()
    gradient_clip: float | None = 1.0  # bound on the gradient's global norm
    groups: tuple[GroupConfig, ...] = added_later(())  # parameters with settings of their own
    ema: float | None = added_later(None)  # decay of a moving average of the weights, which is what is evaluated
    mesh: MeshConfig | None = unhashed(None)  # devices in a grid; None: one device. Rounds sums otherwise (see there)
    # pmap: copies of the model on all devices, and no mesh. The same run, but for dropout and what experts do with a
    # batch (capacity, choice, their losses): these are drawn and done copy by copy.
    compile: Literal["jit", "pmap"] = unhashed("jit")
    deterministic: bool = unhashed(False)  # on a GPU, kernels that sum in one order; a CPU and a TPU have no others
    log_every: int = unhashed(20)  # steps between lines of metrics.jsonl
    validate_every: int = unhashed(200)  # steps between validation losses
    validation_tokens: int = unhashed(16384)
    checkpoint_every: int = unhashed(500)
    keep_checkpoints: int = unhashed(2)  # the newest
    keep_best: int = unhashed(0)  # beside them, those with the lowest validation losses; saved when they are validated
    tensorboard: bool = unhashed(True)  # event files in the run's folder
    trackers: tuple[TrackerConfig, ...] = unhashed(())  # others that show metrics.jsonl: wandb, trackio
    # Norms of each layer's gradients, parameters and updates: a line of layers.jsonl beside each of metrics.jsonl. They
    # are computed anew, by a program of their own, so that weights stay bit for bit: every line costs a step more.
    layer_statistics: bool = unhashed(False)
    profile_steps: tuple[int, ...] | None = unhashed(None)  # first and last step of a trace (see train.profiler)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("steps", "keep_best") else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                raise ValueError(f"{field.name} must be at least {least}, got {value}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise ValueError(f"gradient_clip must be positive or null, got {self.gradient_clip}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema is a decay, above 0 and below 1, or null; got {self.ema}")
        if self.optimizer.averages and not isinstance(self.schedule, ConstantConfig):
            raise ValueError("schedule: the optimizer averages instead of lowering the rate; set schedule to constant")
        if self.ema is not None and self.optimizer.averages:
            raise ValueError("ema: the optimizer has an average of its own; leave one of them out")
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch_size {self.batch_size}")
        if self.profile_steps is not None:
            check_span(self.profile_steps, self.steps)
        if self.mesh is not None and self.compile == "pmap":
            raise ValueError("compile: pmap keeps a copy of the model on every device; leave mesh out, or use jit")
        if self.mesh is not None and (self.batch_size // self.accumulation) % self.mesh.rows:
            raise ValueError(
                f"mesh: divides rows among {self.mesh.rows}, and there are {self.batch_size // self.accumulation} at a "
                "time (batch_size / accumulation)"
            )

    @property
    def all_trackers(self) -> tuple[TrackerConfig, ...]:
        """Each once, with the one that `tensorboard` switches on."""
        return tuple(dict.fromkeys((*([TensorBoardConfig()] if self.tensorboard else []), *self.trackers)))


def check_span(span: tuple[int, ...], steps: int) -> None:
    """Raise ValueError unless `span` is the first and the last of some of so many steps."""
    if len(span) != 2 or not 1 <= span[0] <= span[1]:
        raise ValueError(f"profile_steps must be the first and the last step of a trace, e.g. [10, 12], got {[*span]}")
    if span[0] > steps > 0:
        raise ValueError(f"profile_steps begin at {span[0]}, and there are {steps} steps; give earlier ones, or null")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a trained model depends on; its content hash names the run."""

    schema_version: int = SCHEMA_VERSION
    seed: int = 0
    threads: int = 1  # size of XLA's thread pool: another size sums in another order
    model: ModelConfig = DecoderConfig()
    data: DataConfig = TextDataConfig()
    train: TrainConfig = TrainConfig()
    start: StartConfig | None = added_later(None)  # the weights to begin with; None: drawn from the seed

    def __post_init__(self):
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {self.schema_version} is not {SCHEMA_VERSION}, the one this jaxgpt reads")
        if self.seed < 0 or self.threads < 1:
            raise ValueError("seed must not be negative and threads at least 1")
        if self.seed >= 2**32:  # Grain takes no larger one
            raise ValueError(f"seed must be below 2^32, got {self.seed}")
        if not self.train.steps and self.start is None:
            raise ValueError("train.steps is 0, and no weights are given to begin with; train, or begin with a model")
        parts = 1 if self.train.mesh is None else self.train.mesh.context
        if self.data.sequence_length % parts:
            raise ValueError(
                f"train.mesh.context: {parts} does not divide the {self.data.sequence_length} tokens of a sequence; "
                "give a divisor, or change the length of sequences"
            )
        model = with_sizes(self.model, self.data.known_vocab_size(), self.data.sequence_length)
        object.__setattr__(self, "model", model)

    @property
    def tokens(self) -> int:
        """Tokens the whole run trains on."""
        return self.train.steps * self.train.batch_size * self.data.sequence_length

    @property
    def hash(self) -> str:
        return content_hash(self)


def with_sizes(model: ModelConfig, vocab_size: int | None, train_length: int) -> ModelConfig:
    """`model` with the sizes it left open taken from its data. Raises ConfigError for fewer tokens than text has."""
    if model.vocab_size is not None and vocab_size is not None and model.vocab_size < vocab_size:
        raise ConfigError(
            f"model.vocab_size: {model.vocab_size} is less than the {vocab_size} tokens of the tokenizer; leave it "
            f"out, or give {vocab_size} or more"
        )
    return dataclasses.replace(
        model,
        vocab_size=vocab_size if model.vocab_size is None else model.vocab_size,
        train_length=train_length if model.train_length is None else model.train_length,
    )


def load_config(paths: str | Path | Iterable[str | Path] = (), overrides: Sequence[str] = ()) -> RunConfig:
    """The run described by YAML files (later ones win) and `PATH=VALUE` overrides. Raises ConfigError."""
    return decode(RunConfig, load_raw([paths] if isinstance(paths, (str, Path)) else paths, overrides))


def load_raw(paths: Iterable[str | Path], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The merged but not yet decoded mapping, defaults included."""
    raw = encode_defaults()
    for path in paths:
        raw = merge(raw, read_yaml(path))
    return override(raw, parse_overrides(overrides))


def encode_defaults() -> dict[str, Any]:
    """The default run as plain values, with the sizes a model takes from its data left open."""
    raw = encode(RunConfig())
    raw["model"].update(vocab_size=None, train_length=None)
    return raw


# ------------------------------------------------------------------------------------------------------- the run folder


def open_folder(directory: Path, config: RunConfig) -> None:
    """Make the run's folder with its config.yaml. A folder that holds another configuration is refused."""
    saved = directory / "config.yaml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not saved.exists():
            if any((directory / "checkpoints").glob("[0-9]*")):
                raise CheckpointError(
                    f"{directory}: has checkpoints and no config.yaml that says of what; put it back, choose another "
                    "folder with --run-dir, or remove this one"
                )
            write_atomic(saved, write_yaml(encode(config)))
    except OSError as error:
        raise UserError(
            f"{directory}: the run folder cannot be written ({error.strerror}); choose another with --run-dir or "
            "--runs-dir"
        ) from None
    there = read_config(directory)
    if there.hash != config.hash:
        raise ConfigError(
            f"{directory}: holds a run of another configuration ({there.hash}, this one is {config.hash}); choose "
            "another folder with --run-dir, or remove this one"
        )


def read_config(directory: Path) -> RunConfig:
    """The configuration saved beside a run."""
    path = directory / "config.yaml"
    if not path.exists():
        raise CheckpointError(f"{directory}: is no run folder (no config.yaml)")
    return decode(RunConfig, read_yaml(path))


def abstract_key() -> Array:
    """A key without a value, for `jax.eval_shape`."""
    return jax.eval_shape(lambda: jax.random.key(0))  # type: ignore[return-value]
