"""What a run writes down as it goes: metrics.jsonl, status.json, TensorBoard; and what it shows: a progress bar."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxgpt.errors import UserError
from jaxgpt.files import write_atomic, write_json
from jaxgpt.parallel.processes import is_first
from jaxgpt.train.board import Board


class Recorder:
    """The records of one run in its folder, which the first of its processes writes. After a resume, entries past the
    restored step are dropped first, so that an interrupted run's curve is the uninterrupted one's.
    """

    def __init__(self, directory: Path, *, steps: int, start: int, tensorboard: bool):
        self.directory, self.steps = directory, steps
        self._metrics = directory / "metrics.jsonl"
        self._file = self._board = None
        if not is_first():
            return
        self._keep_until(start)
        try:
            self._file = self._metrics.open("ab", buffering=0)  # what a full disk did not take is not tried again
        except OSError as error:
            raise self._failed(error) from None
        self._board = Board(directory / "tensorboard", start + 1) if tensorboard else None

    def _keep_until(self, step: int) -> None:
        if not self._metrics.exists():
            return
        kept = []
        for line in self._metrics.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # a line cut short by a crash is the last one
                break
            if line.endswith("\n") and entry["step"] <= step:
                kept.append(line)
        write_atomic(self._metrics, "".join(kept))

    def metrics(self, **entry: Any) -> None:
        """Append one line; `step` is among the entries. Raises UserError where the disk does not take it."""
        if self._file is None:
            return
        line = (json.dumps(entry) + "\n").encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._failed(error) from None
        if self._board is not None:
            self._board.add(entry["step"], {name: value for name, value in entry.items() if name != "step"})

    def status(self, state: str, step: int, message: str | None = None) -> None:
        """Replace status.json: "running", "interrupted", "failed" or "trained", with the steps done."""
        write_status(self.directory, state, step, self.steps, message)

    def _failed(self, error: OSError) -> UserError:
        return UserError(
            f"{self._metrics}: cannot be written ({error.strerror}); free space or mend its permissions, and run again "
            "to go on from the last checkpoint"
        )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


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

    def report(self, step: int, loss: float, tokens_per_second: float) -> None:
        note = f"loss {loss:.3f}  {tokens_per_second:,.0f} tokens/s"
        self._progress.update(self._task, completed=step, note=note)
        if not self._live and not self._silent:
            print(f"{self._name}: step {step}/{self._steps}  {note}", file=sys.stderr, flush=True)
