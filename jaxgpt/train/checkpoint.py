"""Checkpoints: Orbax for the arrays, and around it what Orbax does not check.

A checkpoint holds the state's arrays under stable, readable paths (`model/blocks/mixer/query`), the data iterator and a
manifest with shape, type and SHA-256 of every array, and the SHA-256 of the rest. Restoring compares all of them: bytes
that flipped on disk, a missing array or another model are a `CheckpointError`, never a wrong result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxgpt.errors import CheckpointError
from jaxgpt.nn.params import flatten, unflatten

S = TypeVar("S")

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports every phase of every save


def _describe(array: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}


def _digest(content: Any) -> str:
    """SHA-256 of what JSON can hold, the same before it is written and after it is read."""
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


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


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Orbax starts all reads at once. When one fails, the others find their event loop closed, at moments of their own,
    and each would print a traceback beside the one error that is raised; so what drops those stays after a failure.
    """
    before = sys.unraisablehook

    def drop(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = drop
    yield
    sys.unraisablehook = before


class Checkpoints:
    """The checkpoints of one run. `save` returns at once and writes in the background; `close` waits for it."""

    def __init__(self, directory: Path, keep: int = 2):
        self.directory = directory.absolute()
        try:
            options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise CheckpointError(f"{directory}: cannot be written ({error.strerror or error})") from None

    def latest(self) -> int | None:
        """The newest step that was saved whole, or None."""
        return self._manager.latest_step()

    def save(self, state: Any, step: int, extra: dict[str, Any]) -> None:
        """Write `state` with the JSON-able `extra` (iterator, identity). A failure leaves earlier checkpoints whole."""
        # A copy, because the next step is given the state's buffers to overwrite.
        arrays = {name: np.array(leaf, copy=True) for name, leaf in flatten(state).items()}
        manifest = {"arrays": {name: _describe(array) for name, array in arrays.items()}, "extra": _digest(extra)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), manifest=ocp.args.JsonSave(manifest), extra=ocp.args.JsonSave(extra)
        )
        try:
            self._manager.save(step, args=items)
        except Exception as error:  # Orbax raises what its backends raise
            raise self._failed("saving", step, error) from error

    def restore(self, like: S, step: int | None = None) -> tuple[S, dict[str, Any]]:
        """The state and `extra` of `step` (default: the newest), checked against the manifest and against `like`, an
        abstract state (`jax.eval_shape`).
        """
        arrays, extra = self._read(step)
        wanted = flatten(like)
        require_same(arrays, wanted, str(self.directory))
        return unflatten(like, {name: jax.numpy.asarray(arrays[name]) for name in wanted}), extra

    def arrays(self, prefix: str, step: int | None = None) -> dict[str, np.ndarray]:
        """The leaves below `prefix` by path below it, whatever they belong to; only damage is an error."""
        arrays, _ = self._read(step)
        return {name.removeprefix(f"{prefix}/"): a for name, a in arrays.items() if name.startswith(f"{prefix}/")}

    def _read(self, step: int | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        step = self.latest() if step is None else step
        if step is None:
            raise CheckpointError(f"{self.directory}: holds no checkpoint; train first")
        try:
            with _one_error():
                records = ocp.args.Composite(manifest=ocp.args.JsonRestore(), extra=ocp.args.JsonRestore())
                found = self._manager.restore(step, args=records)
                manifest, extra = found["manifest"], found["extra"]
                described, expected = manifest["arrays"], manifest["extra"]
                template = {n: np.empty(item["shape"], np.dtype(item["dtype"])) for n, item in described.items()}
                items = ocp.args.Composite(state=ocp.args.StandardRestore(template))
                restored = self._manager.restore(step, args=items)["state"]
        except Exception as error:  # damage shows as anything from bare Exception to UnicodeDecodeError
            raise self._failed("reading", step, error) from error
        arrays = {name: np.asarray(array) for name, array in restored.items()}
        damaged = [name for name, array in arrays.items() if _describe(array) != described[name]]
        if _digest(extra) != expected:
            damaged.append("extra")
        if damaged:
            raise CheckpointError(
                f"{self.directory / str(step)}: {damaged[0]} is damaged (its checksum differs); delete this folder to "
                "go back to the checkpoint before it"
            )
        return arrays, extra

    def wait(self) -> None:
        """Return when everything saved so far is on disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed("saving", None, error) from error

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def _failed(self, what: str, step: int | None, error: Exception) -> CheckpointError:
        place = self.directory if step is None else self.directory / str(step)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        advice = "delete this folder to go back to the checkpoint before it"
        if what == "saving":
            advice = "earlier checkpoints are whole; free space or mend permissions and run again to resume"
        return CheckpointError(f"{place}: {what} the checkpoint failed ({reason}); {advice}")
