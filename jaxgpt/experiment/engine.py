"""Executes a plan: prepares the data once, has one worker started per run, and says what became of each."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from jaxgpt.config import content_hash
from jaxgpt.errors import DataError, UserError
from jaxgpt.experiment.estimate import Size, size_of
from jaxgpt.experiment.plan import Plan, Run
from jaxgpt.experiment.progress import Display
from jaxgpt.experiment.store import REQUEST
from jaxgpt.files import write_json
from jaxgpt.launch.executor.base import Executor
from jaxgpt.launch.task import Event, Outcome, Task, tail
from jaxgpt.lease import is_locked

if TYPE_CHECKING:
    from jaxgpt.data.dataset import Dataset

FULL = 2**23
"""Bytes free on a disk below which a failure that said nothing is put down to that."""

Command = Callable[[Run], Sequence[str]]


def worker_command(run: Run) -> list[str]:
    """The command that executes a run."""
    return [sys.executable, "-m", "jaxgpt.experiment.worker", str(run.folder.path)]


class Source:
    """Where runs come from that are not known beforehand, such as the trials of a search. Called while an executor
    works, so everything must be quick."""

    total: int  # runs in the end, about

    def more(self, room: int) -> Sequence[Run]:
        """At most so many new runs, the sizes of whose arms are known by now; none: there may be more when a run has
        ended."""
        raise AssertionError("every source defines more")

    def hopeless(self, names: Collection[str]) -> Collection[str]:
        """Those of the running runs that shall be stopped, and count as done."""
        raise AssertionError("every source defines hopeless")

    def ended(self, run: Run) -> None:
        """A run has ended, however."""
        raise AssertionError("every source defines ended")


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that did not finish: why, and where its output is, if it was started."""

    run: Run
    message: str
    log: Path | None


@dataclasses.dataclass(frozen=True)
class Executed:
    """What became of the runs that were pending."""

    finished: tuple[Run, ...]
    failures: tuple[Failure, ...]
    cancelled: tuple[Run, ...]
    interrupted: bool


def pending(plan: Plan) -> list[Run]:
    """The runs with anything left to do, in the order they start: the baseline, then seed by seed, so that what is
    finished when time runs out is paired. Those in quarantine are left out, and those that begin with their weights."""
    found, out = [], set()
    for run in plan.runs:
        if run.is_finished():
            continue
        if run.after in out or run.folder.quarantined() is not None:
            out.add(run.name)
        else:
            found.append(run)
    return found


def quarantined(plan: Plan) -> list[Failure]:
    """The unfinished runs that are not started again before `retry` says so, with the reason."""
    found = []
    for run in plan.runs:
        held = run.folder.quarantined()
        if held is not None and not run.is_finished():
            found.append(Failure(run, held.message, run.folder.log))
    return found


def to_retry(plan: Plan) -> list[Failure]:
    """What `retry` starts once more: what is in quarantine, and what failed in a version that had none."""
    held = quarantined(plan)
    known = {one.run.name for one in held}
    rest = [run for run in plan.runs if run.name not in known and run.state() == "failed"]
    return [*held, *(Failure(run, run.folder.status().get("message") or "no reason", run.folder.log) for run in rest)]


def prepare(plan: Plan) -> dict[str, Size]:
    """Build every dataset that the cache lacks, so that workers only map it, and check it before anything is trained.

    Returns the size of every arm by variant name. Raises DataError where the text is too little for the evaluations, or
    is not the text that earlier runs of this plan were trained on.
    """
    from jaxgpt.evaluate.measure import check

    built: dict[str, Dataset] = {}
    sizes = {}
    for arm in plan.arms:
        data = arm.training.data
        digest = content_hash(data)
        if digest not in built:
            built[digest] = data.prepare()
        check(arm.evaluation, built[digest], arm.measured_in)
        sizes[arm.name] = size_of(arm, built[digest])
    for run in plan.runs:
        check_text(run, sizes[run.arm.name].dataset)
    return sizes


def check_text(run: Run, fingerprint: str) -> None:
    """Raise DataError where a run was trained on another text than the one with this fingerprint."""
    if run.folder.request().get("dataset") not in (None, fingerprint) and run.folder.status():
        raise DataError(f"{run.folder.path}: the text has changed since this run; remove it or use another --runs-dir")


def execute(
    plan: Plan,
    executor: Executor,
    sizes: Mapping[str, Size],
    console: Console,
    command: Command = worker_command,
    *,
    source: Source | None = None,
) -> Executed:
    """Run all that is pending, and then all that `source` has.

    One failing run neither stops nor hides the others: it goes into quarantine with its reason. Several launchers may
    work on the same folder, here or on other machines: each run is executed by one of them, and all wait for all.

    Args:
      sizes: of every arm, by variant name.
      command: what executes a run.

    Raises:
      UserError: the folder cannot be written.
    """
    runs = pending(plan)
    with Display(runs, console, total=source.total if source else 0) as display:
        overseer = _Overseer(
            executor, display, lambda run: _asked(plan, run, sizes, command, executor.processes), source
        )
        tasks = [overseer.take(run) for run in runs]
        more = {} if source is None else {"more": overseer.more}
        outcomes = executor.run(tasks, overseer.on_event, overseer.look, **more)
    ended = dict(zip(overseer.runs, outcomes, strict=True))
    finished, left = _parted(overseer.runs.values(), _is_finished)
    cancelled, left = _parted(left, lambda run: overseer.is_cancelled(run, ended[run.name]))
    failures = []
    if not executor.interrupted:  # those that were told to stop go on where they saved
        failures = [_failure(run, ended[run.name]) for run in left]
    return Executed(tuple(finished), tuple(failures), tuple(cancelled), executor.interrupted)


def _parted(runs: Iterable[Run], belongs: Callable[[Run], bool]) -> tuple[list[Run], list[Run]]:
    """The runs that belong, and the others."""
    answers = [(run, belongs(run)) for run in runs]
    return [run for run, yes in answers if yes], [run for run, yes in answers if not yes]


def _is_finished(run: Run) -> bool:
    """Whether it is: one of whose files cannot be read is not."""
    with contextlib.suppress(UserError):
        return run.is_finished()
    return False


class _Overseer:
    """Looks after the runs while an executor works on them: who else does, what is cancelled, what has failed, and what
    else there is to run."""

    def __init__(self, executor: Executor, display: Display, ask: Callable[[Run], Task], source: Source | None):
        self.runs: dict[str, Run] = {}
        self.executor, self.display, self.ask, self.source = executor, display, ask, source
        self._running: set[str] = set()
        self._hopeless: set[str] = set()
        self._cancelled: set[str] = set()  # also where the next launcher has taken the mark away already
        self._looked = time.monotonic()

    def take(self, run: Run) -> Task:
        """Look after another run."""
        self.runs[run.name] = run
        return self.ask(run)

    def more(self, room: int) -> Sequence[Task]:
        """What else there is to run: nothing once a run was cancelled, or `cancel` would have no end."""
        if self.source is None or any(run.folder.cancelled for run in self.runs.values()):
            return ()
        found = self.source.more(room)
        for run in found:
            self.display.add(run)
        return [self.take(run) for run in found]

    def look(self, task: Task) -> Literal["free", "busy", "done", "barred"]:
        run = self.runs[task.name]
        if is_locked(run.folder.path):
            return "busy"
        try:
            if run.is_finished():
                return "done"
        except UserError:  # a file that cannot be read: its worker says so
            return "free"
        if run.folder.quarantined() is not None or run.folder.cancelled:
            return "barred"
        with contextlib.suppress(UserError):  # on a full disk: it is told when the run has ended
            if not _is_asked(run):
                self.ask(run)
        return "free"

    def on_event(self, event: Event) -> None:
        self._follow(event)
        with contextlib.suppress(UserError):  # of a file that cannot be read: the end of its run says so
            self.display.on_event(event)

    def _follow(self, event: Event) -> None:
        if event.task is not None and event.kind == "started":
            self._running.add(event.task.name)
        elif event.task is not None and event.outcome is not None and event.kind == "ended":
            self._running.discard(event.task.name)
            self._ended(self.runs[event.task.name], event.outcome)
        elif event.kind == "tick" and time.monotonic() - self._looked >= 1.0:
            self._looked = time.monotonic()
            unwanted = {name for name in self._running if self.runs[name].folder.cancelled}
            self._cancelled |= unwanted
            if self.source is not None:
                hopeless = self.source.hopeless(self._running - self._hopeless - unwanted)
                self._hopeless.update(hopeless)
                unwanted.update(hopeless)
            if unwanted:
                self.executor.stop(unwanted)

    def is_cancelled(self, run: Run, outcome: Outcome) -> bool:
        """Whether a run was stopped on request, or not started because what it begins with was."""
        if run.name in self._cancelled or run.folder.cancelled:
            return True
        before = self.runs.get(run.after)
        return outcome.code is None and before is not None and self.is_cancelled(before, outcome)

    def _ended(self, run: Run, outcome: Outcome) -> None:
        """A run that was ended once too often goes into quarantine; one that failed by itself has gone there itself,
        unless it could not."""
        if outcome.cancelled:
            self._cancelled.add(run.name)
        stopped = outcome.code is None or outcome.ok or self.executor.interrupted or run.name in self._hopeless
        if not (stopped or self.is_cancelled(run, outcome) or _is_finished(run) or run.folder.quarantined()):
            with contextlib.suppress(UserError):  # on a full disk: it is told at the end, and tried again next time
                run.folder.quarantine(_words(run, outcome))
        if self.source is not None:
            self.source.ended(run)


def _asked(plan: Plan, run: Run, sizes: Mapping[str, Size], command: Command, processes: int) -> Task:
    """The task of a run, in whose folder lies what is asked for."""
    _ask(plan, run, sizes)
    run.folder.go_on()
    after = (run.after,) if run.after else ()
    together = ("--processes",) if processes > 1 else ()
    return Task(run.name, (*command(run), *together), run.folder.log, {"PYTHONUNBUFFERED": "1"}, after=after)


def _ask(plan: Plan, run: Run, sizes: Mapping[str, Size]) -> None:
    """Leave in the run's folder what a worker reads. Training keeps the configuration as config.yaml, too."""
    size = sizes[run.arm.name]
    request: dict[str, Any] = {
        "kind": run.kind,
        "experiment": plan.experiment.name,
        "variant": run.variant,
        "seed": run.seed,
        "threads": plan.threads,
        **dataclasses.asdict(size),
        "config": run.config,
        "evaluations": [
            {
                "hash": one.hash,
                "variant": one.variant,
                "parameters": sizes[one.variant].parameters if run.kind == "model" else 0,
                "model": one.model,
                "evaluate": one.config,
                "length": one.length,
            }
            for one in run.evaluations
        ],
        "may_diverge": run.may_diverge,
        "study": run.study,
    }
    try:
        run.folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run.folder.path}: cannot be written ({error.strerror}); choose another --runs-dir") from None
    write_json(run.folder.path / REQUEST, request)
    if run.folder.status().get("state") == "failed":  # its message is of the last attempt, not of this one
        run.folder.update_status(state="interrupted", message=None)


def _is_asked(run: Run) -> bool:
    """Whether its folder asks for what is wanted of the run: another launcher may have come to want something else."""
    asked = {one["hash"] for one in run.folder.request().get("evaluations", ())}
    return asked == {one.hash for one in run.evaluations}


def _failure(run: Run, outcome: Outcome) -> Failure:
    """Why a run is not finished."""
    if (held := run.folder.quarantined()) is not None:
        return Failure(run, held.message, run.folder.log)
    if outcome.code is None:
        return Failure(run, outcome.describe(), None)
    return Failure(run, _words(run, outcome), run.folder.log)


def _words(run: Run, outcome: Outcome) -> str:
    """What is wrong with a run, or with a file of it that cannot be read."""
    try:
        return _why(run, outcome)
    except UserError as error:
        return str(error)


def _why(run: Run, outcome: Outcome) -> str:
    """The worker's own words where it left some, else how its process ended."""
    status = run.folder.status()
    if status.get("state") == "failed" and status.get("message"):
        return status["message"]
    if outcome.ok:
        other = "" if _is_asked(run) else "; another launcher asked for others in the meantime"
        return f"ended without finishing its evaluations{other}; the same command goes on with it"
    said = tail(run.folder.log, 1)
    if not outcome.from_outside and said.startswith("error: "):
        return said.removeprefix("error: ")
    times = f", {outcome.attempts} times" if outcome.attempts > 1 else ""
    return outcome.describe() + times + _full_disk(run.folder.path)


def _full_disk(place: Path) -> str:
    """Words for a run that could not even say what was wrong."""
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return ""
    return f" ({free / 2**20:.1f} MiB are left on the disk of {place.parent})" if free < FULL else ""


def print_failures(failures: Sequence[Failure], console: Console) -> None:
    """Every failure with its message and where its output is; the end of the output once for each message."""
    shown = set()
    for failure in failures:
        failed = "" if failure.log is None else " failed:"
        head = Text.assemble((failure.run.name, "bold red"), f"{failed} {failure.message}")
        console.print(head, soft_wrap=True)
        if failure.log is None:
            continue
        if failure.message not in shown:
            for line in tail(failure.log, 8).splitlines():
                console.print(Text(f"    {line}", "dim"), soft_wrap=True)
        shown.add(failure.message)
        console.print(Text(f"    log: {failure.log}"), soft_wrap=True)
