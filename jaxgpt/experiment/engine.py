"""Executes a plan: prepares the data once, starts one worker per run, and says what became of each."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from jaxgpt.config import content_hash
from jaxgpt.errors import DataError, UserError
from jaxgpt.experiment.estimate import Size, size_of
from jaxgpt.experiment.plan import Plan, Run
from jaxgpt.experiment.progress import Display
from jaxgpt.experiment.store import REQUEST
from jaxgpt.files import write_json
from jaxgpt.launch.executor.local import Pool
from jaxgpt.launch.task import Outcome, Slot, Task, tail
from jaxgpt.lease import locked

if TYPE_CHECKING:
    from jaxgpt.data.dataset import Dataset

Command = Callable[[Run], Sequence[str]]


def worker_command(run: Run) -> list[str]:
    """The command that executes a run."""
    return [sys.executable, "-m", "jaxgpt.experiment.worker", str(run.folder.path)]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that did not finish: why, and where its output is, if it was started."""

    run: Run
    message: str
    log: Path | None


@dataclasses.dataclass(frozen=True)
class Executed:
    """What became of the pending runs."""

    finished: tuple[Run, ...]
    failures: tuple[Failure, ...]
    interrupted: bool


def pending(plan: Plan) -> list[Run]:
    """The runs with anything left to do, in the order they start: the baseline, then seed by seed, so that what is
    finished when time runs out is paired."""
    return [run for run in plan.runs if not run.is_finished()]


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
        known = run.folder.request().get("dataset")
        if known not in (None, sizes[run.arm.name].dataset) and run.folder.status():
            raise DataError(
                f"{run.folder.path}: the text has changed since this run; remove it or use another --runs-dir"
            )
    return sizes


def execute(
    plan: Plan, slots: Sequence[Slot], sizes: Mapping[str, Size], console: Console, command: Command = worker_command
) -> Executed:
    """Run all that is pending in a pool of `slots`.

    One failing run neither stops nor hides the others. Only one launcher works on an experiment at a time.

    Args:
      sizes: of every arm, by variant name.
      command: what executes a run.

    Raises:
      Locked: another launcher does.
      UserError: the folder cannot be written.
    """
    with locked(plan.directory, wait=1.0):
        runs = pending(plan)
        for run in runs:
            _ask(plan, run, sizes)
        tasks = [_task(run, command) for run in runs]
        pool = Pool(slots)
        with Display(runs, console) as display:
            outcomes = pool.run(tasks, display.on_event)
    ended = zip(runs, outcomes, strict=True)
    finished = [run for run, outcome in ended if (outcome.ok and run.is_finished()) or run.diverged]
    failures = [_failure(run, outcome) for run, outcome in zip(runs, outcomes, strict=True) if run not in finished]
    if pool.interrupted:
        failures = []  # they were told to stop, and resume where they saved
    return Executed(tuple(finished), tuple(failures), pool.interrupted)


def _task(run: Run, command: Command) -> Task:
    after = (run.after,) if run.after else ()
    return Task(run.name, tuple(command(run)), run.folder.log, {"PYTHONUNBUFFERED": "1"}, after=after)


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
    }
    try:
        run.folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run.folder.path}: cannot be written ({error.strerror}); choose another --runs-dir") from None
    write_json(run.folder.path / REQUEST, request)
    if run.folder.status().get("state") == "failed":  # its message is of the last attempt, not of this one
        run.folder.update_status(state="interrupted", message=None)


def _failure(run: Run, outcome: Outcome) -> Failure:
    """The worker's own words where it left some, else how its process ended."""
    if outcome.code is None:
        return Failure(run, outcome.describe(), None)
    status = run.folder.status()
    message = status.get("message") if status.get("state") == "failed" else None
    if outcome.ok:
        message = "ended without finishing its evaluations"
    return Failure(run, message or outcome.describe(), run.folder.log)


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
