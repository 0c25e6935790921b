"""What a run writes down as it goes: metrics.jsonl, layers.jsonl, status.json, trackers; and what it shows: a progress
bar."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxgpt.errors import UserError
from jaxgpt.files import write_atomic, write_json
from jaxgpt.parallel.processes import is_first
from jaxgpt.train.tracker.base import TrackedRun, TrackerConfig, Trackers


class Lines:
    """A file of JSON lines, each on disk at once, that goes on after a step: entries past it are dropped first, so that
    an interrupted run's curve is the uninterrupted one's. Raises UserError where it cannot be written."""

    def __init__(self, path: Path, step: int):
        self._path = path
        self._keep_until(step)
        try:
            self._file = path.open("ab", buffering=0)  # what a full disk did not take is not tried again
        except OSError as error:
            raise self._failed(error) from None

    def _keep_until(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise self._failed(error) from None
        for line in lines:
            try:
                written = json.loads(line)["step"]
            except (ValueError, KeyError, TypeError):  # a line that a crash cut short, or made anything of, is the last
                break
            if line.endswith(b"\n") and written <= step:
                kept.append(line)
        write_atomic(self._path, b"".join(kept))

    def add(self, entry: Mapping[str, Any]) -> None:
        line = (json.dumps(entry) + "\n").encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> UserError:
        return UserError(
            f"{self._path}: cannot be written ({error.strerror}); free space or mend its permissions, and run again "
            "to go on from the last checkpoint"
        )

    def close(self) -> None:
        self._file.close()


class Recorder:
    """The records of one run in its folder, which the first of its processes writes. `start`: the step to go on from;
    `settings`: the run's configuration as plain values, for trackers; `layers`: whether there will be layers.jsonl."""

    def __init__(
        self,
        directory: Path,
        *,
        steps: int,
        start: int,
        trackers: Iterable[TrackerConfig] = (),
        settings: Mapping[str, Any] | None = None,
        layers: bool = False,
    ):
        self.directory, self.steps = directory, steps
        self._metrics = self._layers = self._trackers = None
        if not is_first():
            return
        self._metrics = Lines(directory / "metrics.jsonl", start)
        self._layers = Lines(directory / "layers.jsonl", start) if layers else None
        self._trackers = Trackers(trackers, TrackedRun(directory, settings or {}, start + 1))

    def metrics(self, **entry: Any) -> None:
        """Append one line; `step` is among the entries. Raises UserError where the disk does not take it."""
        if self._metrics is None or self._trackers is None:
            return
        self._metrics.add(entry)
        self._trackers.add(entry["step"], {name: value for name, value in entry.items() if name != "step"})

    def layers(self, step: int, norms: Mapping[str, Mapping[str, Any]]) -> None:
        """Append one line to layers.jsonl: what was measured -> parameter -> one number, or one per layer."""
        if self._layers is not None:
            plain = {name: {path: norm.tolist() for path, norm in found.items()} for name, found in norms.items()}
            self._layers.add({"step": step, **plain})

    def status(self, state: str, step: int, message: str | None = None) -> None:
        """Replace status.json: "running", "interrupted", "failed" or "trained", with the steps done."""
        write_status(self.directory, state, step, self.steps, message)

    def close(self) -> None:
        for part in (self._metrics, self._layers, self._trackers):
            if part is not None:
                part.close()


def write_status(directory: Path, state: str, step: int, steps: int, message: str | None = None) -> None:
    """Replace status.json, if this is the first process of the run."""
    if is_first():
        write_json(directory / "status.json", {"state": state, "step": step, "steps": steps, "message": message})


class TrainingProgress:
    """A bar with loss, tokens per second and time left on a terminal; plain lines elsewhere."""

    def __init__(self, steps: int, start: int, name: str):
        self._silent = not is_first()
        self._live = sys.stderr.isatty() and not self._silent
        self._name = name
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._live,
        )
        self._task = self._progress.add_task(name, total=steps, completed=start, note="compiling")
        self._steps = steps

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def advance(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def report(self, step: int, loss: float, tokens_per_second: float, share_of_peak: float | None = None) -> None:
        note = f"loss {loss:.3f}  {tokens_per_second:,.0f} tokens/s"
        note += "" if share_of_peak is None else f"  {share_of_peak:.0%} of peak"
        self._progress.update(self._task, completed=step, note=note)
        if not self._live and not self._silent:
            print(f"{self._name}: step {step}/{self._steps}  {note}", file=sys.stderr, flush=True)
