"""What lies in the run folders now. Files are read again only where they changed.

A run may write, restart or vanish while it is read: what cannot be read is left out, and `Run.problems` says so.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISDIR
from typing import Any, get_args

from jaxgpt.config import read_yaml
from jaxgpt.errors import UserError
from jaxgpt.experiment.serve.reading import Metrics, Stamp, mapping, number, stamp, whole
from jaxgpt.experiment.store import EVALUATION, FAILED, METRICS, REQUEST, STATUS, RunFolder, State, read_json
from jaxgpt.lease import is_locked

CONFIG, ENVIRONMENT, ATTEMPTS = "config.yaml", "environment.json", "attempts.jsonl"
_SIGNS = (REQUEST, STATUS, METRICS, CONFIG)  # a folder with any of these is a run's

Read = tuple[dict[str, Any], str | None]  # the content of a file, and what is wrong with it

# ---------------------------------------------------------------------------------------------------------------- runs


class Run:
    """One run folder. Its content is that of the last `refresh`."""

    def __init__(self, path: Path):
        self.name, self.folder = path.name, RunFolder(path)
        self.metrics = Metrics(path / METRICS)
        self.problems: list[str] = []
        self._kept: dict[str, tuple[Stamp | None, Read]] = {}
        self.request: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        self.failed: dict[str, Any] = {}
        self.evaluations: dict[str, dict[str, Any]] = {}
        self.config: dict[str, Any] = {}
        self.state = "pending"
        self.version: tuple[object, ...] = ()

    def refresh(self) -> None:
        """Look at the files again."""
        self.problems = []
        self.request = self._look(REQUEST, self.folder.request)
        self.status = self._look(STATUS, self.folder.status)
        self.failed = self._look(FAILED, lambda: read_json(self.folder.path / FAILED))
        evaluations = self._look(EVALUATION, self.folder.evaluations)
        self.evaluations = {key: one for key, one in evaluations.items() if isinstance(one, dict)}
        self.config = mapping(self.request.get("config"))
        if not self.config:
            self.config = self._look(CONFIG, lambda: read_yaml(self.folder.path / CONFIG))
        self.metrics.refresh()
        if self.metrics.problem:
            self.problems.append(self.metrics.problem)
        if not self.request:
            self.problems.append(f"no {REQUEST}: not started by an experiment")
        self.state = self._state()
        stamps = tuple(kept[0] for kept in self._kept.values())
        self.version = (*stamps, self.metrics.version, self.state)

    def values(self, name: str) -> dict[int, float]:
        """Step -> a number of the training lines other than the loss."""
        with contextlib.suppress(RecursionError):
            lines = [line for line in self.folder.curve() if "loss" in line]
            found = {line["step"]: number(line.get(name)) for line in lines}
            return {step: value for step, value in found.items() if value is not None}
        return {}

    def _look(self, name: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The content of a file, read if it changed; empty, and a problem noted, where it cannot be read."""
        now = stamp(self.folder.path / name)
        kept = self._kept.get(name)
        if kept is None or kept[0] != now:
            kept = self._kept[name] = (now, ({}, None) if now is None else _try(read))
        content, problem = kept[1]
        if problem:
            self.problems.append(problem)
        return content

    def environment(self) -> dict[str, Any]:
        """environment.json."""
        return self._look(ENVIRONMENT, self.folder.environment)

    # ------------------------------------------------------------------------------------------ what people ask first

    @property
    def kind(self) -> str:
        return str(self.request.get("kind", "model"))

    @property
    def variant(self) -> str:
        """The variant; the folder's name without its hash where no experiment asked for this run."""
        return str(self.request.get("variant") or self.name.rpartition("-")[0] or self.name)

    @property
    def seed(self) -> int:
        return whole(self.request.get("seed", self.config.get("seed")))

    def _state(self) -> str:
        """As `RunFolder.state`; `unknown` where status.json says nothing that can be understood."""
        said = self.status.get("state", "pending")
        known = isinstance(said, str) and said in get_args(State)
        if not known or any(STATUS in problem for problem in self.problems):
            return "unknown"
        if stamp(self.folder.path / FAILED):
            return "failed"
        if said in ("pending", "interrupted", "running") and is_locked(self.folder.path):
            return "running"
        return "interrupted" if said == "running" else said

    @property
    def message(self) -> str:
        """Why it is in quarantine, else what its status says; empty where there is nothing to say."""
        return str(self.failed.get("message") or self.status.get("message") or "")

    @property
    def steps(self) -> int:
        """Steps asked for, 0 where unknown."""
        return whole(self.status.get("steps")) or whole(mapping(self.config.get("train")).get("steps"))

    @property
    def step(self) -> int:
        last = self.metrics.training[-1].step if self.metrics.training else 0
        return max(whole(self.status.get("step")), last)

    @property
    def loss(self) -> float | None:
        """The last training loss in nats per token."""
        return number(self.metrics.training[-1].loss) if self.metrics.training else None

    @property
    def validation_loss(self) -> float | None:
        """The last validation loss in nats per token."""
        return number(self.metrics.validation[-1].loss) if self.metrics.validation else None

    @property
    def speed(self) -> float | None:
        """Tokens per second, the median over the last lines."""
        speeds = [line.speed for line in self.metrics.training[-50:] if line.speed]
        return statistics.median(speeds) if speeds else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds of training left, of a run that is at it."""
        if self.state != "running" or not self.metrics.training or not self.speed or self.steps <= self.step:
            return None
        last = self.metrics.training[-1]
        return number((self.steps - self.step) * last.tokens / max(1, last.step) / self.speed)

    @property
    def wanted(self) -> list[dict[str, Any]]:
        """The evaluations that request.json asks for."""
        asked = self.request.get("evaluations")
        return [one for one in asked if isinstance(one, dict)] if isinstance(asked, list) else []

    @property
    def evaluated(self) -> tuple[int, int]:
        """How many of the evaluations asked for are done, and how many there are."""
        return sum(str(one.get("hash")) in self.evaluations for one in self.wanted), len(self.wanted)

    @property
    def changed(self) -> float:
        """Seconds since 1970 of the last change to what a run writes as it goes, 0 if nothing was written."""
        found = [stamp(self.folder.path / name) for name in (STATUS, METRICS, EVALUATION, REQUEST)]
        return max([one[2] for one in (*found, stamp(self.folder.log)) if one], default=0) / 1e9

    @property
    def asked(self) -> float:
        """Seconds since 1970 when this run was asked for, which orders runs."""
        found = stamp(self.folder.path / REQUEST)
        return found[2] / 1e9 if found else math.inf


def _try(read: Callable[[], dict[str, Any]]) -> Read:
    try:
        return read(), None
    except UserError as error:
        return {}, str(error)
    except (RecursionError, OSError) as error:
        return {}, f"cannot be read ({type(error).__name__})"


# --------------------------------------------------------------------------------------------------------------- store


class NotFound(Exception):
    """There is no experiment, run or page of this name (any more)."""


class Store:
    """The experiments of a runs folder. Not for several threads at a time."""

    def __init__(self, runs_dir: Path):
        self.runs_dir = runs_dir
        self._runs: dict[Path, Run] = {}

    def experiments(self) -> dict[str, Path]:
        """Name -> folder of every experiment that has runs, in alphabetical order."""
        found = {path.name: path for path in _folders(self.runs_dir) if any(map(_is_run, _folders(path)))}
        return dict(sorted(found.items()))

    def runs(self, experiment: str) -> list[Run]:
        """The runs of an experiment as they are now, in the order they were asked for. Raises NotFound."""
        paths = list(self._paths(experiment).values())
        for path in [path for path in self._runs if path.parent.name == experiment and path not in paths]:
            del self._runs[path]
        found = []
        for path in paths:
            run = self._runs.setdefault(path, Run(path))
            run.refresh()
            found.append(run)
        return sorted(found, key=lambda run: (run.asked, run.name))

    def run(self, experiment: str, name: str) -> Run:
        """One run. Raises NotFound."""
        path = self._paths(experiment).get(name)
        if path is None:
            raise NotFound(name)
        run = self._runs.setdefault(path, Run(path))
        run.refresh()
        return run

    def has_run(self, experiment: str, name: str) -> bool:
        """Whether there is such a run."""
        return experiment in self.experiments() and name in self._paths(experiment)

    def _folder(self, experiment: str) -> Path:
        folder = self.experiments().get(experiment)
        if folder is None:
            raise NotFound(experiment)
        return folder

    def _paths(self, experiment: str) -> dict[str, Path]:
        return {path.name: path for path in _folders(self._folder(experiment)) if _is_run(path)}

    def report(self, experiment: str) -> Path | None:
        """The page of an experiment's report, if it was written. Raises NotFound."""
        page = self._folder(experiment) / "report" / "index.html"
        return page if stamp(page) else None

    def about(self, experiment: str) -> dict[str, Any]:
        """What the report of an experiment says of itself, empty without one. Raises NotFound."""
        path = self._folder(experiment) / "report" / "about.json"
        try:
            return mapping(json.loads(path.read_text(encoding="utf-8"))) if stamp(path) else {}
        except (OSError, ValueError, RecursionError):
            return {}


def _folders(path: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for child in path.iterdir():
            with contextlib.suppress(OSError, UnicodeEncodeError):  # names that are not UTF-8 have no address
                child.name.encode()
                if not child.name.startswith(".") and S_ISDIR(child.stat().st_mode):
                    yield child


def _is_run(path: Path) -> bool:
    return any(stamp(path / name) for name in _SIGNS)
