"""What Slurm jobs and those who follow them tell each other: two small files per task, each with one writer.

In the folder `slurm` of the executor's directory, `jobs/NAME.json` is written by whoever submits: which job executes
the task. `attempts/NAME.json` is written by the job: how it goes. Slurm's accounting may be off and its memory of ended
jobs is short, so the second file is the truth about how a task ended.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from jaxgpt.files import write_json

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Submitted:
    """The job that executes a task. `job`: its number, or ARRAY_INDEX; `submitted`: when, in seconds since 1970."""

    name: str
    job: str
    submitted: float
    retries: int = 0  # jobs before this one that were ended from outside
    cancelled: bool = False  # on request


@dataclasses.dataclass(frozen=True)
class Attempt:
    """The newest attempt at a task: one start of its job. Times are in seconds since 1970."""

    name: str
    job: str
    restart: int  # times that Slurm started this job again
    number: int  # attempts so far, of all jobs
    node: str
    started: float
    before: float = 0.0  # seconds of the attempts before
    ended: float | None = None
    code: int | None = None  # exit code, negative for a signal
    final: bool = False  # whether the job tries no further
    unsaved: int = 0  # attempts in a row that had to be killed after they were asked to save
    message: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of all attempts together, as far as they have ended."""
        return self.before + max(0.0, (self.ended or self.started) - self.started)

    def same_start(self, other: Attempt | None) -> bool:
        """Whether both were written since the same start of the same job."""
        return other is not None and (self.job, self.restart) == (other.job, other.restart)


def home(directory: Path) -> Path:
    """The folder of everything that has to do with Slurm, in the directory of an executor."""
    return directory / "slurm"


def attempt_path(directory: Path, name: str) -> Path:
    """Where the newest attempt at a task is recorded."""
    return home(directory) / "attempts" / f"{quote(name, safe='')}.json"


def job_path(directory: Path, name: str) -> Path:
    """Where the job of a task is recorded."""
    return home(directory) / "jobs" / f"{quote(name, safe='')}.json"


def write(path: Path, content: Submitted | Attempt) -> None:
    """Replace the file whole."""
    write_json(path, dataclasses.asdict(content))


def read_attempt(path: Path) -> Attempt | None:
    """The attempt in a file; None where there is none (yet)."""
    return _read(path, Attempt)


def read_submitted(path: Path) -> Submitted | None:
    """The job in a file; None where there is none."""
    return _read(path, Submitted)


def all_submitted(directory: Path) -> list[Submitted]:
    """Every job on record, in the order of submission."""
    found = [read_submitted(path) for path in sorted((home(directory) / "jobs").glob("[!.]*.json"))]
    return sorted((one for one in found if one is not None), key=lambda one: one.submitted)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kind(**raw)
    except (OSError, ValueError, TypeError):  # TypeError: written by another version
        return None
