"""What a launcher is given and what it gives back, wherever the runs execute.

A launcher knows commands only: it starts them, keeps their output and says how they ended. What they compute is not its
concern, so nothing of training is imported here.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Task:
    """A command to execute once. Its standard output and error are appended to `log`.

    `after` names tasks that must have succeeded before; of the tasks of one call they come earlier in the list, and
    names of no task of the call are done already.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)  # on top of the launcher's own and the slot's
    cwd: Path | None = None
    after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Slot:
    """Room for one task at a time: an environment, and the cores its processes are pinned to (empty: not pinned)."""

    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cpus: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a task ended. `code` is the exit code, negative for a signal, None if it never started."""

    task: Task
    code: int | None
    seconds: float = 0.0
    message: str = ""  # why it was not started

    @property
    def ok(self) -> bool:
        return self.code == 0

    def describe(self) -> str:
        """The outcome in a few words, such as `killed by SIGKILL (out of memory?)`."""
        if self.message:
            return self.message
        if self.code is None:
            return "was not started"
        if self.code < 0:
            try:
                name = signal.Signals(-self.code).name
            except ValueError:
                name = f"signal {-self.code}"
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"exit code {self.code}"


@dataclasses.dataclass(frozen=True)
class Event:
    """What a pool tells while it works: a task started or ended, the first request to stop arrived, or time passed."""

    kind: Literal["started", "ended", "stopping", "tick"]
    task: Task | None = None
    outcome: Outcome | None = None


Listener = Callable[[Event], None]


def tail(path: Path, lines: int = 20, size: int = 16384) -> str:
    """The last lines of a log file, empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""
