"""Checkpoints: Orbax for the arrays, and around it what Orbax does not check.

A checkpoint holds the state's arrays under stable, readable paths (`model/blocks/mixer/query`), the data iterator and
the run's identity, and a manifest of the files that hold them (`train.manifest`). Restoring compares all of it: bytes
that flipped on disk, a missing file or another model are a `CheckpointError`, never a wrong result. Every device writes
and reads its own part of a state that is divided, and a state may come back divided in another way.

The newest are kept, and beside them those with the lowest validation losses. A loss lies in the checkpoint it is of, so
that it is known after a resume and is as well sealed as the arrays.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxgpt.errors import CheckpointError, ConfigError
from jaxgpt.nn.params import flatten, unflatten
from jaxgpt.parallel.processes import is_first, meet
from jaxgpt.train.manifest import DamagedCheckpoint, seal, verify

S = TypeVar("S")

LOSS = "validation_loss"  # in the `extra` of a checkpoint that was validated
_LOG = logging.getLogger(__name__)
for name in ("absl", "asyncio"):  # Orbax reports every phase of a save; of errors, also those that it raises
    logging.getLogger(name).setLevel(logging.CRITICAL)


def require_same(arrays: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError unless arrays have the names, shapes and types of those `wanted`."""
    missing, surplus = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or surplus:
        raise CheckpointError(
            f"{where}: belongs to another model; missing here: {', '.join(missing[:4]) or 'nothing'}; "
            f"not in the model: {', '.join(surplus[:4]) or 'nothing'}"
        )
    for name, leaf in wanted.items():
        got, want = (arrays[name].shape, np.dtype(arrays[name].dtype)), (tuple(leaf.shape), np.dtype(leaf.dtype))
        if got != want:
            raise CheckpointError(f"{where}: {name} is {got[1]}{got[0]}, the model has {want[1]}{want[0]}")


REMOVED = "removed"
"""Where a checkpoint goes, by one renaming, before its files are removed: who is killed then leaves no half of it."""

_unraisable = sys.unraisablehook


def _drop_closed_loops(unraisable: Any) -> None:
    """Orbax reads, and writes, everything at once. When a part fails, the others find their event loop closed, at
    moments of their own, and each would print a traceback beside the one error that is raised."""
    if str(unraisable.exc_value) != "Event loop is closed":
        _unraisable(unraisable)


sys.unraisablehook = _drop_closed_loops
warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # of the same parts


class Checkpoints:
    """The checkpoints of one run. `save` returns at once and writes in the background; `close` waits for it.

    keep: so many of the newest stay. best: beside them, so many of those saved with the lowest validation losses.
    writes: False for who only reads, beside a writer perhaps. A writer removes what a killed one left behind.
    """

    def __init__(self, directory: Path, keep: int = 2, best: int = 0, writes: bool = True):
        self.directory, self.keep, self.best = directory.absolute(), keep, best
        self._writes = writes
        self._losses: dict[int, float | None] = {}  # by step, as far as they were read; None: not validated
        try:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self,
                create=writes,
                read_only=not writes,
                cleanup_tmp_directories=writes,
                todelete_subdir=REMOVED,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            )
            handlers = {"state": ocp.PyTreeCheckpointHandler(), "extra": ocp.JsonCheckpointHandler()}
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)
        except OSError as error:
            raise CheckpointError(f"{directory}: cannot be written ({error.strerror or error})") from None
        self._saving = 0

    def latest(self) -> int | None:
        """The newest step that was saved whole, or None."""
        return self._manager.latest_step()

    def find(self, which: int | str) -> int:
        """The step of a checkpoint: `last`, `best` (of those that were validated), or a step that is there.

        Raises CheckpointError where it is not there, ConfigError where `which` is none of these, DamagedCheckpoint
        where it cannot be told which is the best because the note of a loss is damaged.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise CheckpointError(f"{self.directory}: holds no checkpoint; train first")
        there = f"there are {_listed(steps)}"
        if which == "last":
            return steps[-1]
        if which == "best":
            found = self._measured(steps)
            if not found:
                raise CheckpointError(
                    f"{self.directory}: holds no checkpoint that was kept for its validation loss; {there}; train with "
                    "train.keep_best=1, or ask for last or a step"
                )
            return next(iter(found))
        if not str(which).isdecimal():
            raise ConfigError(f"checkpoint {which!r}: expected best, last or a step; {there}")
        if int(which) not in steps:
            raise CheckpointError(f"{self.directory}: holds no checkpoint of step {which}; {there}")
        return int(which)

    def is_among_best(self, loss: float) -> bool:
        """Whether a checkpoint with this validation loss would be kept for it; of equal losses the earlier counts."""
        found = self._measured(self._manager.all_steps()) if self.best else {}
        return math.isfinite(loss) and sum(other <= loss for other in found.values()) < self.best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question, before it removes old checkpoints: which stay?"""
        steps = [one.step for one in checkpoints]  # ascending
        kept = {*steps[-self.keep :], *(list(self._measured(steps))[: self.best] if self.best else ())}
        return [step in kept for step in steps]

    def _measured(self, steps: Sequence[int]) -> dict[int, float]:
        """The validation losses of those steps that were saved with one, the best first."""
        for step in steps:
            if step not in self._losses:
                self._check(step, "extra")
                with self._reading(step):
                    self._losses[step] = self._extra(step).get(LOSS)
        found = {step: loss for step in steps if (loss := self._losses[step]) is not None}
        return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))

    def save(self, state: Any, step: int, extra: dict[str, Any], loss: float | None = None) -> None:
        """Write `state` with the JSON-able `extra` (iterator, identity), and its validation loss where the best are
        kept. A failure leaves earlier checkpoints whole."""
        self.wait()
        self._saving = step
        if self.best:
            self._measured(self._manager.all_steps())  # while nothing is being written
            self._losses[step] = loss = loss if loss is not None and math.isfinite(loss) else None
            extra = extra if loss is None else {**extra, LOSS: loss}
        arrays = {name: _own(leaf) for name, leaf in flatten(state).items()}
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(arrays), extra=ocp.args.JsonSave(copy.deepcopy(extra)))
        try:
            saved = self._manager.save(step, args=items)
        except Exception as error:  # Orbax raises what its backends raise
            raise self._failed(step, error) from error
        assert saved, f"step {step} is not above {self.latest()}"

    def _seal(self) -> None:
        """Called by Orbax, in one process, when all files of a checkpoint are written and the folder has not got its
        name yet."""
        for folder in self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
            seal(folder)

    def restore(self, like: S, step: int | None = None, places: Any = None) -> tuple[S, dict[str, Any]]:
        """The state and `extra` of `step` (default: the newest), checked against the manifest and against `like`, an
        abstract state (`jax.eval_shape`). `places`: a tree of shardings of the same form; None: all on one device.

        Raises DamagedCheckpoint where it is not what was written, CheckpointError where it is of something else.
        """
        step = self._verified(step)
        with self._reading(step):
            wanted, found = flatten(like), self._found(step)
        require_same(found, wanted, str(self.directory))
        whole = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shardings = dict.fromkeys(wanted, whole) if places is None else flatten(places)
        ways = {name: ocp.ArrayRestoreArgs(sharding=shardings[name]) for name in wanted}
        with self._reading(step):
            arrays, extra = self._arrays(step, wanted, ways), self._extra(step)
        return unflatten(like, {name: arrays[name] for name in wanted}), extra

    def restore_intact(self, like: S, places: Any = None) -> tuple[S, dict[str, Any]]:
        """`restore` of the newest step that is intact. Newer ones, which are damaged, are named in a warning and moved
        aside, to `damaged-STEP`; where no step is intact nothing is moved, and that is an error. So are older ones of
        which it cannot be told whether they are among the best, where those are kept."""
        damaged: list[DamagedCheckpoint] = []
        for step in (steps := sorted(self._manager.all_steps(), reverse=True)):
            try:
                restored = self.restore(like, step, places)
            except DamagedCheckpoint as error:
                damaged.append(error)
                continue
            unknown = self._unknown(steps[len(damaged) :]) if self.best else {}
            meet("all have read")
            for newer, error in zip(steps, damaged, strict=False):
                _LOG.warning("%s: %s; going back to the checkpoint of step %d", error.place, error.how, step)
                self._move_aside(newer)
            for older, error in unknown.items():
                _LOG.warning("%s: %s; it no longer counts among the best", error.place, error.how)
                self._move_aside(older)
            return restored
        if not damaged:
            raise CheckpointError(f"{self.directory}: holds no checkpoint; train first")
        newest = damaged[0]
        raise CheckpointError(
            f"{newest.place}: {newest.how}, and no other checkpoint is intact; remove {self.directory} to train from "
            "the start"
        )

    def _unknown(self, steps: Sequence[int]) -> dict[int, DamagedCheckpoint]:
        """Those steps whose loss cannot be read, and why."""
        found = {}
        for step in steps:
            try:
                self._measured([step])
            except DamagedCheckpoint as error:
                found[step] = error
        return found

    def arrays(self, *prefixes: str, step: int | None = None) -> dict[str, np.ndarray]:
        """The leaves below the first of these prefixes that has any, by path below it (without a prefix: all leaves),
        whatever they belong to; only damage is an error."""
        step = self._verified(step)
        with self._reading(step):
            found = self._found(step)
            begins = [f"{prefix}/" for prefix in prefixes] or [""]
            begin = next((begin for begin in begins if any(name.startswith(begin) for name in found)), None)
            if begin is None:
                return {}
            below = {name: leaf for name, leaf in found.items() if name.startswith(begin)}
            arrays = self._arrays(step, below, dict.fromkeys(below, ocp.RestoreArgs(restore_type=np.ndarray)))
        return {name.removeprefix(begin): np.asarray(array) for name, array in arrays.items()}

    def _verified(self, step: int | None) -> int:
        step = self.latest() if step is None else step
        if step is None:
            raise CheckpointError(f"{self.directory}: holds no checkpoint; train first")
        self._check(self.find(step))
        return step

    def _check(self, step: int, below: str = "") -> None:
        """`verify` the folder of a step, or what lies below one of its folders."""
        folder = self.directory / str(step)
        try:
            verify(folder, below)
        except DamagedCheckpoint as error:
            if not folder.exists():
                raise CheckpointError(f"{folder}: was removed by its writer meanwhile; read again") from None
            others = sorted(set(self._manager.all_steps()) - {step})
            if step > max(others, default=-1):
                raise
            raise DamagedCheckpoint(error.place, error.how, f"there are also {_listed(others)}") from None

    def _found(self, step: int) -> dict[str, Any]:
        """Shape and type of every array of a step."""
        described = self._manager.item_metadata(step)["state"].tree
        return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in described.items()}

    def _arrays(self, step: int, wanted: Mapping[str, Any], ways: Mapping[str, Any]) -> dict[str, Any]:
        template = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in wanted.items()}
        state = ocp.args.PyTreeRestore(template, restore_args=dict(ways), partial_restore=True)
        return self._manager.restore(step, args=ocp.args.Composite(state=state))["state"]

    def _extra(self, step: int) -> dict[str, Any]:
        return self._manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore()))["extra"]

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax raises what its backends raise
            place = self.directory / str(step)
            raise CheckpointError(f"{place}: cannot be read ({_reason(error)}); its files are as written") from error

    def _move_aside(self, step: int) -> None:
        if is_first():
            aside = self.directory / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)
        meet(f"step {step} is aside")
        self._manager.reload()

    def wait(self) -> None:
        """Return when everything saved so far is on disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(None, error) from error
        finally:
            if self._writes and is_first():
                shutil.rmtree(self.directory / REMOVED, ignore_errors=True)

    def close(self) -> None:
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # it says once more what went wrong
                self._manager.close()

    def _failed(self, step: int | None, error: Exception) -> CheckpointError:
        place = self.directory if step is None else self.directory / str(step)
        return CheckpointError(
            f"{place}: saving the checkpoint failed ({_reason(error)}); earlier checkpoints are whole; free space or "
            "mend permissions and run again to resume"
        )


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))


def _reason(error: Exception) -> str:
    """What the operating system said, where it is that, or what Orbax did."""
    text = " ".join(str(error).split())
    system = re.search(r"\[Errno \d+\] ([^:]+)|([^:]+) \[os_error_code=", text)  # Python's words, and TensorStore's
    return (system[1] or system[2]).strip() if system else text[:200] or type(error).__name__


def _own(leaf: Any) -> Any:
    """A copy where the next step may overwrite the buffer that is being written: it is given the state's buffers, and
    on a CPU they are read in place."""
    if not isinstance(leaf, jax.Array):
        return np.array(leaf, copy=True)
    return leaf.copy() if next(iter(leaf.devices())).platform == "cpu" else leaf
