"""Runs that begin with given weights, those of another run or of a checkpoint of transformers: their configuration, the
model they begin with, and the model of any run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxgpt.config import decode, encode, merge, override, parse_overrides, read_yaml
from jaxgpt.convert import load_pretrained
from jaxgpt.convert import read_config as read_their_config
from jaxgpt.convert.folder import fingerprint, has_tokenizer, is_checkpoint, read_tokenizer
from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.tokenizers.base import Tokenizer, load_tokenizer, require_same_tokenizer
from jaxgpt.data.tokenizers.pretrained import PretrainedTokenizer, read_text
from jaxgpt.errors import CheckpointError, ConfigError
from jaxgpt.files import write_json
from jaxgpt.models.base import ModelConfig
from jaxgpt.models.extend import extend
from jaxgpt.nn.params import flatten, unflatten
from jaxgpt.nn.position.rope_scaling import ScalingConfig
from jaxgpt.registry import lookup
from jaxgpt.train.checkpoint import Checkpoints, require_same
from jaxgpt.train.run import RunConfig, abstract_key, encode_defaults, read_config, with_sizes
from jaxgpt.train.step import init_model
from jaxgpt.train.surgery import Cut, StartConfig, describe, transplant

M = TypeVar("M")

# --------------------------------------------------------------------------------------------------- configurations


def continue_from(directory: Path, paths: Iterable[str | Path] = (), overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run that begins with the weights of the run in `directory`: that run's own, with YAML
    files and `PATH=VALUE` overrides on top. The key `extend`, a rope scaling such as `{type: yarn, factor: 4}`, takes
    the place of every rope's scaling in the model. `model.train_length`, from which encodings take what they were not
    told, stays that of the old weights, whatever the length of the new sequences: T5's buckets and the original length
    of a scaling mean what they meant.

    `directory` may also be a checkpoint of transformers: then the defaults, with its model and tokenizer, are the base.

    Raises ConfigError where the model has no rope to extend or nobody names the tokenizer, CheckpointError where
    `directory` is neither.
    """
    raw = encode_defaults() if is_checkpoint(directory) else encode(read_config(directory))
    begin = base_of(directory)
    data = {name: value for name, value in raw["data"].items() if name != "tokenizer"}  # the model knows one only
    raw = {**raw, **begin, "data": merge(data, begin["data"])}
    for path in paths:
        raw = merge(raw, read_yaml(path))
    raw = override(raw, parse_overrides(overrides))
    require_tokenizer(directory, raw["data"])
    extension = raw.pop("extend", None)
    config = decode(RunConfig, raw)
    return dataclasses.replace(config, model=extended(config.model, extension))


def base_of(folder: Path) -> dict[str, Any]:
    """The partial configuration of runs that begin with what lies in a folder: the model, the data it was trained on
    as far as they are known, and where its weights are. Of a checkpoint of transformers that is its tokenizer, if it
    has one, and the length of the sequences.

    Raises CheckpointError where the folder is neither a run nor a checkpoint.
    """
    folder = folder.expanduser().resolve()  # from wherever it is read again
    if not is_checkpoint(folder):
        old = read_config(folder)
        start = StartConfig(old.hash, str(folder))
        return {"model": encode(old.model), "data": encode(old.data), "start": encode(start)}
    model = read_their_config(folder)
    data: dict[str, Any] = {} if model.train_length is None else {"sequence_length": model.train_length}
    if has_tokenizer(folder):
        separator = read_tokenizer(folder).separator
        data["tokenizer"] = {"type": "pretrained", "path": str(folder), "separator": separator}
    start = StartConfig(fingerprint(folder), str(folder))
    return {"model": encode(model), "data": data, "start": encode(start)}


def require_tokenizer(folder: Path, data: Mapping[str, Any]) -> None:
    """Raise ConfigError where raw data that begin with a folder's weights are of a kind that has a tokenizer, and name
    none."""
    kind = lookup(DataConfig, data.get("type", "text"), "data.type")
    if "tokenizer" in {field.name for field in dataclasses.fields(kind)} - data.keys():
        raise ConfigError(
            f"{folder}: has no tokenizer.json, and its model knows one tokenizer only; put the file there, or name the "
            "tokenizer as data.tokenizer"
        )


def extended(model: Any, extension: Any) -> Any:
    """`model` with a raw `extend` entry applied (None: none)."""
    return model if extension is None else extend(model, decode(ScalingConfig, extension, "extend"))


# ---------------------------------------------------------------------------------------------------------- weights


def load_model(
    directory: Path, model: ModelConfig | None = None, checkpoint: int | str = "last"
) -> tuple[Any, Tokenizer]:
    """The model of a run and its tokenizer. With `model`, a configuration whose parameters have the same names and
    shapes (another rope scaling, say), the weights are put into that one.

    checkpoint: `last`, `best` (the lowest validation loss; see `train.keep_best`), or the step of one that is there.
    Raises CheckpointError where it is not there or is damaged.
    """
    config = read_config(directory)
    tokenizer = load_tokenizer(directory / "tokenizer")
    wanted = with_sizes(model or config.model, tokenizer.vocab_size, config.data.sequence_length)
    like = jax.eval_shape(wanted.make, abstract_key())
    arrays, _ = _weights(directory, config, tokenizer, checkpoint)
    require_same(arrays, flatten(like), str(directory))
    return unflatten(like, {name: jnp.asarray(array) for name, array in arrays.items()}), tokenizer


def has_last_step(directory: Path, config: RunConfig) -> bool:
    """Whether the weights of a run's last step are there, as far as the names of its checkpoints say."""
    if not config.train.steps:
        return True
    checkpoints = Checkpoints(directory / "checkpoints", writes=False)
    try:
        return checkpoints.latest() == config.train.steps
    finally:
        checkpoints.close()


def starting_model(start: StartConfig, model: M, tokenizer: Tokenizer, directory: Path) -> M:
    """`model`, freshly drawn, with the weights that `start` names. What was done to each parameter is printed on
    standard error and kept in `directory/surgery.json`.

    Raises CheckpointError where the folder is not what was named, the run in it is not at its end, or a parameter is
    unexplained; DataError where it had another tokenizer.
    """
    model, cuts, step = _transplanted(start, model, tokenizer)
    print(describe(cuts, f"{start.folder} (step {step})" if step else start.folder), file=sys.stderr, flush=True)
    parameters = [dataclasses.asdict(cut) for cut in cuts]
    write_json(directory / "surgery.json", {"run": start.hash, "step": step, "parameters": parameters})
    return model


def fresh_model(config: RunConfig, tokenizer: Tokenizer) -> Any:
    """What the weights of `config.start` are put into: shapes alone where none of them is drawn anew."""
    model = with_sizes(config.model, tokenizer.vocab_size, config.data.sequence_length)

    def draw() -> Any:
        return init_model(model, config.seed)

    drawn = config.start is None or config.start.add or config.start.grow
    return jax.jit(draw)() if drawn else jax.eval_shape(draw)


def _transplanted(start: StartConfig, model: M, tokenizer: Tokenizer) -> tuple[M, list[Cut], int]:
    """The model with the weights, what was done to each parameter, and the step they are from."""
    folder = Path(start.folder).expanduser()
    read = _theirs if is_checkpoint(folder) else _of_run
    arrays, step = read(folder, start.hash, tokenizer)
    return *transplant(arrays, model, start, str(folder)), step


def _theirs(folder: Path, wanted: str, tokenizer: Tokenizer) -> tuple[Mapping[str, Any], int]:
    """The weights of a checkpoint of transformers by path, and no step."""
    if (found := fingerprint(folder)) != wanted:
        raise CheckpointError(
            f"{folder}: holds the checkpoint {found}, but this run begins with the weights of {wanted}; give the "
            "folder that has those"
        )
    if has_tokenizer(folder):
        separator = tokenizer.pieces[tokenizer.separator] if isinstance(tokenizer, PretrainedTokenizer) else None
        theirs = PretrainedTokenizer(read_text(folder), separator)
        require_same_tokenizer(theirs.fingerprint, tokenizer, str(folder))
    return flatten(load_pretrained(folder, "float32")[0]), 0


def _of_run(folder: Path, wanted: str, tokenizer: Tokenizer) -> tuple[Mapping[str, Any], int]:
    """The last weights of a finished run by path, and its step."""
    old = read_config(folder)
    if old.hash != wanted:
        raise CheckpointError(
            f"{folder}: holds the run {old.hash}, but this one begins with the weights of {wanted}; give its "
            "folder as start.folder"
        )
    arrays, step = _weights(folder, old, tokenizer)
    if step < old.train.steps:
        raise CheckpointError(f"{folder}: is at step {step} of {old.train.steps}; train it to its end first")
    require_same_tokenizer(load_tokenizer(folder / "tokenizer").fingerprint, tokenizer, str(folder))
    return arrays, step


def _weights(
    directory: Path, config: RunConfig, tokenizer: Tokenizer, checkpoint: int | str = "last"
) -> tuple[Mapping[str, Any], int]:
    """The weights of a run by path, and their step. A run of no steps keeps none: its weights are those it begins
    with."""
    if not config.train.steps:
        assert config.start is not None
        if checkpoint != "last":
            raise CheckpointError(f"{directory}: was not trained and has no checkpoints; ask for last")
        model, _, _ = _transplanted(config.start, fresh_model(config, tokenizer), tokenizer)
        return flatten(model), 0
    checkpoints = Checkpoints(directory / "checkpoints", writes=False)
    try:
        step = checkpoints.find(checkpoint)
        if checkpoint == "last" and step < config.train.steps and _says_trained(directory):
            raise CheckpointError(
                f"{directory}: was trained to step {config.train.steps}, whose checkpoint is gone; run it again to "
                f"go on from step {step}, or ask for that one"
            )
        return checkpoints.arrays("average", "model", step=step), step
    finally:
        checkpoints.close()


def _says_trained(directory: Path) -> bool:
    """Whether the run's record says that it came to its end."""
    try:
        return json.loads((directory / "status.json").read_bytes())["state"] in ("trained", "finished")
    except (OSError, ValueError, KeyError, TypeError):
        return False
