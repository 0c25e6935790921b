"""The training loop: data in, steps, records and checkpoints out; interruptible and resumable at any step."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxgpt.config import encode
from jaxgpt.data.dataset import Dataset
from jaxgpt.data.pipeline import pipeline_identity, require_same_pipeline
from jaxgpt.data.tokenizers.base import load_tokenizer, require_same_tokenizer
from jaxgpt.errors import CheckpointError, Interrupted, PeerLost, TrainingError, UserError, first_line
from jaxgpt.parallel.hardware import peak_flops
from jaxgpt.parallel.processes import Question, is_first, lost, meet
from jaxgpt.train.checkpoint import Checkpoints
from jaxgpt.train.devices import devices_of
from jaxgpt.train.environment import prepare_jax, record_environment
from jaxgpt.train.functions import functions_of
from jaxgpt.train.meter import Meter
from jaxgpt.train.profiler import Profiler
from jaxgpt.train.record import Recorder, TrainingProgress, write_status
from jaxgpt.train.run import RunConfig, open_folder
from jaxgpt.train.start import fresh_model, starting_model
from jaxgpt.train.step import TrainState, loss_sum_in_parts


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What `train` returns: the model to evaluate, which is that after the last step or an average, and the last losses
    in nats per token: of the batch as it was trained, and of the model."""

    model: Any
    step: int
    loss: float | None  # None where the run was finished already
    validation_loss: float | None


def train(config: RunConfig, directory: str | Path) -> TrainResult:
    """Train one run in its folder, from its last checkpoint if it has one.

    Raises Interrupted after Ctrl-C or SIGTERM (the state is saved first), TrainingError when the loss or its gradient
    is no longer finite (the last good checkpoint stays), and the errors of data, configuration and checkpoints.
    """
    directory = Path(directory)
    prepare_jax(config.threads, config.train.deterministic)
    open_folder(directory, config)
    loop, alone = None, False
    try:
        for tracker in config.train.all_trackers:
            tracker.check()
        dataset = config.data.prepare()
        if is_first():
            keep_tokenizer(directory, dataset)
        meet("the run folder is there")
        if not config.train.steps:  # weights that are given and stay as they are
            model = _given(config, dataset, directory)
            if is_first():
                record_environment(directory)
            write_status(directory, "trained", 0, 0)
            return TrainResult(model, 0, None, None)
        loop = _Loop(config, directory, dataset)
        try:
            return loop.run()
        except Exception as error:
            if not lost(error):
                raise
            alone = True
            raise PeerLost(
                f"{directory}: another process of this run is gone ({first_line(error)}); run again to go on from the "
                "last checkpoint"
            ) from error
    except UserError as error:
        state = "interrupted" if isinstance(error, Interrupted) else "failed"
        with contextlib.suppress(UserError):  # on a full disk: what is wrong is said already
            write_status(directory, state, loop.done if loop else 0, config.train.steps, str(error))
        raise
    finally:
        if loop and not alone:  # alone, there is nobody to finish a checkpoint with
            loop.close()


def _given(config: RunConfig, dataset: Dataset, directory: Path) -> Any:
    """The model with the weights that a run begins with."""
    assert config.start is not None
    return starting_model(config.start, fresh_model(config, dataset.tokenizer), dataset.tokenizer, directory)


def keep_tokenizer(directory: Path, dataset: Dataset) -> None:
    """Save the tokenizer with the run; a run that has another one already is refused."""
    place = directory / "tokenizer"
    if place.exists():
        require_same_tokenizer(load_tokenizer(place).fingerprint, dataset.tokenizer, str(directory))
    else:
        unfinished = directory / ".tokenizer"  # a run that is killed here has no tokenizer rather than half of one
        dataset.tokenizer.save(unfinished)
        unfinished.replace(place)


class _Loop:
    """The parts of one run, and how they move."""

    def __init__(self, config: RunConfig, directory: Path, dataset: Dataset):
        self.config, self.directory, self.dataset = config, directory, dataset
        train = config.train
        self.done = 0
        self.devices = devices_of(train)
        vocab_size, axis = dataset.tokenizer.vocab_size, self.devices.axis
        functions = functions_of(config, vocab_size, packed=dataset.packed, axis=axis)
        self.model, self.schedule = functions.model, functions.schedule
        self.init, self.begin = functions.init, functions.begin
        self.averaged = self.devices.function(lambda state: train.optimizer.average(state.optimizer, state.model))
        like = jax.eval_shape(self.init)
        self.train_step = self.devices.step(functions.step, like)
        self.watch = self.devices.watch(functions.watch, like)
        self.validation_sum = self.devices.function(
            lambda model, batch: loss_sum_in_parts(model, batch, train.accumulation)
        )
        self.identity = pipeline_identity(
            dataset.fingerprint, train.batch_size, dataset.sequence_length, config.seed, dataset.packing
        )
        self.iterator = dataset.batches(train.batch_size, config.seed, self.devices.rows)
        dataset.validation_batches(train.batch_size, 1)  # what is too short for one is told now, not after hours
        self.checkpoints = Checkpoints(directory / "checkpoints", train.keep_checkpoints, train.keep_best)
        self.profiler = Profiler(directory / "profile", train.profile_steps if is_first() else None)

    def close(self) -> None:
        self.profiler.close()
        self.checkpoints.close()

    def start(self) -> TrainState:
        """The state to go on from: the newest intact checkpoint's, or a new one, with given weights if so asked."""
        if self.checkpoints.latest() is None:
            if self.config.start is None:
                return self.devices.begin(self.init)
            return self.devices.begin(self.begin, _given(self.config, self.dataset, self.directory))
        like = jax.eval_shape(lambda: self._as_saved(self.init()))
        state, extra = self.checkpoints.restore_intact(like, self.devices.places(like))
        if self.config.train.optimizer.averages:
            state = dataclasses.replace(state, average=None)
        require_same_pipeline(extra["identity"], self.identity, str(self.directory))
        if extra["config"] != self.config.hash:
            raise CheckpointError(
                f"{self.checkpoints.directory}: was saved by a run of another configuration ({extra['config']}, this "
                f"one is {self.config.hash}); remove the folder to train from the start"
            )
        self.iterator.set_state(extra["iterator"])
        return self.devices.spread(state)

    def _evaluated(self, state: TrainState) -> Any:
        """The model that is validated, and evaluated later: an average of those that were trained, if there is one."""
        if self.config.train.optimizer.averages:
            return self.averaged(self.devices.whole(state))
        return self.devices.whole(state.model if state.average is None else state.average)

    def _as_saved(self, state: TrainState) -> TrainState:
        """As a checkpoint holds it: with the average, which an optimizer of its own only implies."""
        averages = self.config.train.optimizer.averages
        return dataclasses.replace(state, average=self.averaged(state)) if averages else state

    def run(self) -> TrainResult:
        train = self.config.train
        state = self.start()
        self.done = int(self.devices.whole(state).step)
        if self.done >= train.steps:
            write_status(self.directory, "trained", self.done, train.steps)
            return TrainResult(self._evaluated(state), self.done, None, None)
        if is_first():
            record_environment(self.directory)
        recorder = Recorder(
            self.directory,
            steps=train.steps,
            start=self.done,
            trackers=train.all_trackers,
            settings=encode(self.config),
            layers=train.layer_statistics,
        )
        try:
            with interruptible() as stopping, TrainingProgress(train.steps, self.done, self.directory.name) as progress:
                recorder.status("running", self.done)
                result = self._steps(state, recorder, progress, stopping)
            self.checkpoints.wait()
            recorder.status("trained", self.done)
            return result
        finally:
            recorder.close()

    def _steps(
        self, state: TrainState, recorder: Recorder, progress: TrainingProgress, stopping: Callable[[], bool]
    ) -> TrainResult:
        """Every step dispatches its work and only then reads the metrics of the one before, so that the device never
        waits for the host; steps that end in a checkpoint, a validation or an edge of a trace read their own first.
        """
        train = self.config.train
        meter = self._meter()
        pending: dict[str, Any] | None = None
        loss, validation, anyone = math.nan, None, Question()

        def read(metrics: dict[str, Any], step: int) -> float:
            return self._read(metrics, step, recorder, progress, meter)

        while self.done < train.steps:
            batch = self.devices.put(next(self.iterator))
            watched = self.watch(state, batch) if self._is_recorded(self.done + 1) else {}
            with self.profiler.step(self.done + 1):
                state, metrics = self.train_step(state, batch)
            if pending is not None:
                loss = read(pending, self.done)
            self.done += 1
            last = self.done == train.steps
            validating = self.done % train.validate_every == 0 or last
            # Asked once: a signal that comes while validating is answered after the next step.
            stop = anyone(stopping())
            saving = self.done % train.checkpoint_every == 0 or last or stop
            pending = metrics = {**metrics, **watched}
            if validating or saving or self.profiler.is_edge(self.done):
                loss, pending = read(metrics, self.done), None
                self.profiler.done(self.done)
            if validating:
                validation = self.validate(self._evaluated(state))
                recorder.metrics(step=self.done, tokens=self.done * meter.tokens, validation_loss=validation)
            found = validation if validating else None
            if saving or (found is not None and self.checkpoints.is_among_best(found)):
                self.save(state, found)
            if validating or saving:
                meter.resume()
            if stop and not last:
                self.checkpoints.wait()
                raise Interrupted(f"{self.directory}: interrupted at step {self.done}, saved; run again to go on")
        return TrainResult(self._evaluated(state), self.done, loss, validation)

    def _is_recorded(self, step: int) -> bool:
        return step % self.config.train.log_every == 0 or step == self.config.train.steps

    def _meter(self) -> Meter:
        batch_size, sequence_length = self.config.train.batch_size, self.config.data.sequence_length
        peak = peak_flops(jax.devices()[0].device_kind)
        return Meter(
            batch_size * sequence_length,
            self.model.flops_per_token(sequence_length),
            None if peak is None else peak * self.devices.count,
            self.done,
        )

    def _read(
        self, metrics: dict[str, Any], step: int, recorder: Recorder, progress: TrainingProgress, meter: Meter
    ) -> float:
        """Wait for a step's metrics, check and record them; the loss."""
        loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])
        meter.lap()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.checkpoints.wait()
            good = self.checkpoints.latest()
            kept = f"the last good checkpoint is step {good}" if good is not None else "no checkpoint was saved yet"
            raise TrainingError(
                f"{self.directory}: at step {step} the loss is {loss} and its gradient's norm {norm}; {kept}; lower "
                "train.learning_rate or train.gradient_clip"
            )
        progress.advance(step)
        if self._is_recorded(step):
            measured = meter.since(step)
            recorder.metrics(
                step=step,
                tokens=step * meter.tokens,
                loss=loss,
                gradient_norm=norm,
                parameter_norm=float(metrics["parameter_norm"]),
                learning_rate=float(jnp.asarray(self.schedule(step - 1))),
                **measured,
                **{name: float(value) for name, value in metrics.items() if name.startswith("router_")},
            )
            if "layers" in metrics:
                recorder.layers(step, jax.device_get(metrics["layers"]))
            progress.report(step, loss, measured["tokens_per_second"], measured.get("share_of_peak"))
        return loss

    def save(self, state: TrainState, validation: float | None) -> None:
        extra = {"identity": self.identity, "iterator": self.iterator.get_state(), "config": self.config.hash}
        self.checkpoints.save(self._as_saved(self.devices.whole(state)), self.done, extra, validation)

    def validate(self, model: Any) -> float:
        """Mean negative log-likelihood on batches spread over the validation data, in nats per token."""
        batch_size, sequence_length = self.config.train.batch_size, self.config.data.sequence_length
        wanted = max(self.config.train.validation_tokens // (batch_size * sequence_length), 1)
        total = weight = 0.0
        for batch in self.dataset.validation_batches(batch_size, wanted):
            weight += float(batch["weights"].sum())
            mine = batch if self.devices.rows is None else {name: x[self.devices.rows] for name, x in batch.items()}
            total += float(self.validation_sum(model, self.devices.put(mine)))
        return total / weight


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C and SIGTERM only set what the yielded function returns; a second Ctrl-C ends at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
