"""Run folders that nobody needs any more, found and removed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from jaxgpt.errors import UserError
from jaxgpt.experiment.plan import Run
from jaxgpt.experiment.store import REQUEST, RunFolder
from jaxgpt.lease import Locked, locked

GOING = ".removed-"
"""Before the name of a folder that is being removed."""


@dataclasses.dataclass(frozen=True)
class Removable:
    """A folder that may go: why, and its bytes."""

    path: Path
    why: str
    size: int


def unused(directory: Path, runs: Sequence[Run], more: Collection[str] = ()) -> list[Removable]:
    """The run folders in `directory` that belong to none of these runs, that none of them begins with and that are not
    among `more`, and what is left of those whose removal did not come to its end."""
    kept = {*more, *(run.folder.path.name for run in runs)}
    kept |= {Path(start["folder"]).name for run in runs if (start := run.config.get("start")) and start.get("folder")}
    half = sorted(directory.glob(f"{GOING}*"))
    found = [path.parent for path in directory.glob(f"*/{REQUEST}") if path.parent.name not in kept]
    return [
        *(
            Removable(path, f"of another plan, {_state(RunFolder(path))}", size(path))
            for path in sorted(set(found) - set(half))
        ),
        *(Removable(path, "half removed", size(path)) for path in half),
    ]


def _state(folder: RunFolder) -> str:
    try:
        return folder.state()
    except UserError:
        return "unreadable"


def chosen(runs: Iterable[Run]) -> list[Removable]:
    """The folders of these runs, those that exist."""
    paths = [(run.folder.path, _state(run.folder)) for run in runs if run.folder.path.exists()]
    return [Removable(path, state, size(path)) for path, state in paths]


def size(path: Path) -> int:
    """Bytes of a folder; files that vanish meanwhile count for nothing."""
    total = 0
    for one in path.rglob("*"):
        try:
            total += one.lstat().st_size
        except OSError:
            continue
    return total


def remove(found: Sequence[Removable]) -> list[Removable]:
    """Remove the folders; those that a process writes to are left, and returned. Raises UserError where one cannot be
    removed."""
    left = []
    for one in found:
        going = one.path.with_name(f"{GOING}{one.path.name.removeprefix(GOING)}")
        try:
            with locked(one.path):
                if going != one.path and going.exists():  # left by a removal that did not come to its end
                    shutil.rmtree(going)
                one.path.rename(going)  # who is killed meanwhile leaves no half of a run
            shutil.rmtree(going)
        except Locked:
            left.append(one)
        except OSError as error:
            raise UserError(f"{one.path}: cannot be removed ({error.strerror}); mend its permissions") from None
    return left
