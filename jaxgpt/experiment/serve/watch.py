"""What lies in the run folders now. Files are read again only where they changed, and of curves only what was appended.

A run may write, restart or vanish while it is read: nothing here raises for what is missing or broken. What cannot be
read is left out, and `Run.problems` says so.
"""

from __future__ import annotations

import bisect
import codecs
import contextlib
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple, get_args

from jaxgpt.config import read_yaml
from jaxgpt.errors import UserError
from jaxgpt.experiment.store import EVALUATION, METRICS, REQUEST, STATUS, RunFolder, State

CONFIG, ENVIRONMENT, ATTEMPTS = "config.yaml", "environment.json", "attempts.jsonl"
_SIGNS = (REQUEST, STATUS, METRICS, CONFIG)  # a folder with any of these is a run's
_CHECKED = 64  # bytes before the end of what was read that must still be there when more is read
LOG_END = 64 * 1024
"""Bytes of a log that are shown first."""

Stamp = tuple[int, int, int]
Read = tuple[dict[str, Any], str | None]


def stamp(path: Path) -> Stamp | None:
    """What changes when a file does: inode, size, time of change. None where there is no regular file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if S_ISREG(found.st_mode) else None


def number(value: Any) -> float | int | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the floats
        return None


def whole(value: Any) -> int:
    """The value if it is a whole number, else 0."""
    return value if isinstance(value, int) and number(value) is not None else 0


# -------------------------------------------------------------------------------------------------------------- curves


class Training(NamedTuple):
    """A line of metrics.jsonl about training. `loss` is nan where a run wrote no number."""

    step: int
    tokens: float
    seconds: float  # since the start of the first process
    loss: float
    speed: float | None  # tokens per second


class Validation(NamedTuple):
    """A line of metrics.jsonl about held-out text. `seconds` are those of the training line before."""

    step: int
    tokens: float
    seconds: float
    loss: float


class Metrics:
    """metrics.jsonl as far as it was written. As in `RunFolder.curve`, the last line of a step and kind counts.

    `version` changes with the content; `broken` counts lines that say nothing.
    """

    def __init__(self, path: Path):
        self.path, self.version = path, 0
        self._seen: Stamp | None = None
        self._forget()

    def _forget(self) -> None:
        self._read, self._last, self.broken = 0, b"", 0
        self._training: dict[int, tuple[float, float, float, float | None]] = {}
        self._validation: dict[int, tuple[float, float]] = {}
        self.training: list[Training] = []
        self.validation: list[Validation] = []

    def refresh(self) -> None:
        """Read what was appended; everything, where the file is another one or its beginning changed."""
        now = stamp(self.path)
        if now == self._seen:
            return
        try:
            new = b"" if now is None else self._appended(now)
        except OSError:  # vanished between two looks
            now, new = None, b""
        if now is None:
            self._forget()
        self._seen, self.version = now, self.version + 1
        for line in new.splitlines():
            if line.strip():
                self._add(line)
        self._sort()

    def _appended(self, now: Stamp) -> bytes:
        """The whole lines that were not read before."""
        if self._seen is None or now[0] != self._seen[0] or now[1] < self._read:
            self._forget()
        with self.path.open("rb") as file:
            file.seek(self._read - len(self._last))
            content = file.read()
            if not content.startswith(self._last):
                self._forget()
                file.seek(0)
                content = file.read()
        new = content[len(self._last) :]
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        self._last = (self._last + new)[-_CHECKED:]
        return new

    def _add(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            step = entry["step"]
        except (ValueError, TypeError, KeyError, RecursionError):
            self.broken += 1
            return
        if not isinstance(step, int) or number(step) is None:
            self.broken += 1
            return
        tokens = _float(entry.get("tokens"))
        if "validation_loss" in entry:
            self._validation[step] = (tokens, _float(entry["validation_loss"]))
        elif "loss" in entry:
            speed = number(entry.get("tokens_per_second"))
            self._training[step] = (tokens, _float(entry.get("seconds")), _float(entry["loss"]), speed)

    def _sort(self) -> None:
        training, before, offset = [], 0.0, 0.0
        for step, (tokens, seconds, loss, speed) in sorted(self._training.items()):
            if seconds + offset < before:  # each process counts from its own start
                offset = before
            before = before if math.isnan(seconds) else seconds + offset
            training.append(Training(step, tokens, before, loss, speed))
        steps, self.training, self.validation = [line.step for line in training], training, []
        for step, (tokens, loss) in sorted(self._validation.items()):
            place = bisect.bisect_right(steps, step)
            self.validation.append(Validation(step, tokens, training[place - 1].seconds if place else 0.0, loss))


def _float(value: Any) -> float:
    found = number(value)
    return math.nan if found is None else float(found)


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
        self.evaluations: dict[str, dict[str, Any]] = {}
        self.config: dict[str, Any] = {}
        self.state = "pending"
        self.version: tuple[object, ...] = ()

    def refresh(self) -> None:
        """Look at the files again."""
        self.problems = []
        self.request = self._look(REQUEST, self.folder.request)
        self.status = self._look(STATUS, self.folder.status)
        evaluations = self._look(EVALUATION, self.folder.evaluations)
        self.evaluations = {key: one for key, one in evaluations.items() if isinstance(one, dict)}
        self.config = mapping(self.request.get("config"))
        if not self.config:
            self.config = self._look(CONFIG, lambda: read_yaml(self.folder.path / CONFIG))
        self.metrics.refresh()
        if self.metrics.broken:
            self.problems.append(f"{METRICS}: {self.metrics.broken} lines cannot be read")
        if not self.request:
            self.problems.append(f"no {REQUEST}: not started by an experiment")
        self.state = self._state()
        stamps = tuple(kept[0] for kept in self._kept.values())
        self.version = (*stamps, self.metrics.version, self.state)

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
        if said == "running":
            with contextlib.suppress(UserError, RecursionError, OSError):
                said = self.folder.state()
        known = isinstance(said, str) and said in get_args(State)
        broken = any(STATUS in problem for problem in self.problems)
        return said if known and not broken else "unknown"

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


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def _try(read: Callable[[], dict[str, Any]]) -> Read:
    try:
        return read(), None
    except UserError as error:
        return {}, str(error)
    except (RecursionError, OSError) as error:
        return {}, f"cannot be read ({type(error).__name__})"


def json_lines(path: Path, most: int = 100) -> list[dict[str, Any]]:
    """The last mappings in a file of JSON lines, empty where there is none."""
    if stamp(path) is None:
        return []
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-most:]:
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
    return found


def log_part(path: Path, after: int | None = None) -> dict[str, Any]:
    """What a log holds beyond byte `after`, or its end: `text`, `start` and `end` in bytes."""
    now = stamp(path)
    size = now[1] if now else 0
    start = max(0, size - LOG_END) if after is None or not 0 <= after <= size or size - after > LOG_END else after
    text = b""
    if now:
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(start)
            text = file.read(LOG_END)
    if start and start != after:  # begin with a whole line
        cut = text.find(b"\n") + 1
        start, text = start + cut, text[cut:]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    shown = decoder.decode(text)
    return {"text": shown, "start": start, "end": start + len(text) - len(decoder.getstate()[0])}


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
