"""What was started last in an experiment's folder: `sweep.json`, from which its state is shown without planning anew.

The run folders are the truth about every run; the index only says which of them belong together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgpt.errors import UserError
from jaxgpt.experiment.plan import Run
from jaxgpt.experiment.store import RunFolder, now, read_json
from jaxgpt.files import write_json

INDEX = "sweep.json"


@dataclasses.dataclass(frozen=True)
class Listed:
    """A run, as much of it as its state needs."""

    name: str
    kind: str
    variant: str
    seed: int
    wanted: tuple[str, ...]  # hashes of the evaluations asked for
    folder: RunFolder
    may_diverge: bool = False
    study: str = ""

    @classmethod
    def of(cls, run: Run) -> Listed:
        wanted = tuple(one.hash for one in run.evaluations)
        return cls(run.name, run.kind, run.variant, run.seed, wanted, run.folder, run.may_diverge, run.study)

    def is_finished(self) -> bool:
        return self.folder.is_finished(self.wanted, self.may_diverge, self.study)

    def state(self) -> str:
        """That of its folder, but for a run that was trained earlier and is asked for more. A folder that cannot be
        read is `failed`."""
        try:
            if self.is_finished():
                return "finished"
            state = self.folder.state()
        except UserError:
            return "failed"
        return "trained" if state == "finished" else state


@dataclasses.dataclass(frozen=True)
class Index:
    """What was started: the options that name the plan, the executor, and the runs."""

    options: Mapping[str, Any]
    executor: Mapping[str, Any]
    runs: tuple[Listed, ...]
    command: str = ""
    time: str = ""


def write_index(directory: Path, index: Index) -> None:
    """Replace the index. Raises UserError where it cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); choose a place with --runs-dir") from None
    plain = ("name", "kind", "variant", "seed", "may_diverge", "study")
    runs = [{**{field: getattr(run, field) for field in plain}, "wanted": list(run.wanted)} for run in index.runs]
    content = {"command": index.command, "time": now(), "options": index.options, "executor": index.executor}
    write_json(directory / INDEX, {**content, "runs": runs})


def read_index(directory: Path) -> Index | None:
    """The index; None if nothing was started there, or by another version."""
    try:
        raw = read_json(directory / INDEX)
        runs = [
            Listed(**{**one, "wanted": tuple(one["wanted"]), "folder": RunFolder(directory / one["name"])})
            for one in raw["runs"]
        ]
        return Index(raw["options"], raw["executor"], tuple(runs), raw["command"], raw["time"])
    except (KeyError, TypeError, UserError):
        return None


def listed(plans: Sequence[Any]) -> tuple[Listed, ...]:
    """The runs of plans, in order."""
    return tuple(Listed.of(run) for plan in plans for run in plan.runs)
