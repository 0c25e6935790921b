"""What a launcher is given and what it gives back, wherever the runs execute.

A launcher knows commands only: it starts them, keeps their output and says how they ended. What they compute is not its
concern, so nothing of training is imported here.
"""

from __future__ import annotations

import dataclasses
import errno
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
class Needs:
    """What every task of a call needs: threads, bytes of memory, accelerators."""

    threads: int = 1
    memory: int = 2**30
    devices: int = 1


@dataclasses.dataclass(frozen=True)
class Slot:
    """Room for one task at a time: an environment, and the cores its processes are pinned to (empty: not pinned)."""

    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cpus: tuple[int, ...] = ()


STOPPED = 130
"""Exit code of a task that was asked to stop and saved its state."""

NO_SPACE = errno.ENOSPC
"""Exit code of a task that found no space left on a disk, and so may not even have been able to say it."""

BUSY = 75
"""Exit code of a task that found another process at the same work."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a task ended. `code` is the exit code, negative for a signal, None if it never started."""

    task: Task
    code: int | None
    seconds: float = 0.0  # of its attempts together
    message: str = ""  # why it was not started, or what ended it, where the code does not say
    attempts: int = 1
    cancelled: bool = False  # the scheduler was asked to end it: that is no failure

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def from_outside(self) -> bool:
        """Whether something else ended it: it might succeed where that does not come again."""
        return self.code is not None and (self.code < 0 or self.code == STOPPED)

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
        words = {STOPPED: "stopped from outside", NO_SPACE: "no space was left on the disk"}
        return words.get(self.code, f"exit code {self.code}")


@dataclasses.dataclass(frozen=True)
class Event:
    """What an executor tells while it works: a task started or ended; one was ended from outside and is tried `again`;
    the first request to stop arrived; or time passed. `message`: words for people, where there is more to say."""

    kind: Literal["started", "ended", "again", "stopping", "tick"]
    task: Task | None = None
    outcome: Outcome | None = None
    message: str = ""


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
