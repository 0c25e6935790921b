"""What the verbs of the command line do with a plan."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from jaxgpt.config import encode
from jaxgpt.errors import ConfigError, Interrupted, UserError
from jaxgpt.experiment import clean as cleaning
from jaxgpt.experiment import engine
from jaxgpt.experiment import status as states
from jaxgpt.experiment.axes import unnamed_differences
from jaxgpt.experiment.engine import Failure, print_failures
from jaxgpt.experiment.estimate import estimate, needs_of
from jaxgpt.experiment.index import Index, Listed, listed, read_index, write_index
from jaxgpt.experiment.plan import Plan, Run
from jaxgpt.experiment.progress import duration
from jaxgpt.experiment.search.points import Searched, Wanted, largest_plan, look, trial_plan, with_points
from jaxgpt.experiment.search.tables import TRIALS, search_table, show_search, trial_rows, write_trials
from jaxgpt.experiment.search.trials import Trials
from jaxgpt.experiment.spec import Experiment, Tuning
from jaxgpt.experiment.tuning import Choice, choose, grid_plan, tuned, with_rates
from jaxgpt.experiment.where import Where, check_exists, select
from jaxgpt.files import short_name
from jaxgpt.launch.executor.base import ExecutorConfig, cancel_jobs, jobs_of
from jaxgpt.lease import locked

# -------------------------------------------------------------------------------------------------- what there is to do


@dataclasses.dataclass(frozen=True)
class Work:
    """A plan, and the trials that choose its learning rates, or the search that chooses its settings, if any; once they
    are chosen, the plan has them. `again` looks what there is to do after a search."""

    plan: Plan
    trials: Plan | None = None
    choices: Sequence[Choice] = ()
    where: Where | None = None
    searched: Searched | None = None
    again: Callable[[], Work] | None = None

    @functools.cached_property
    def selected(self) -> Plan:
        """The runs asked for, chosen once: a filter of states means those from before the verb did anything."""
        return self.plan if self.where is None else select(self.plan, self.where)

    @property
    def plans(self) -> list[Plan]:
        return [self.selected] if self.trials is None else [self.trials, self.selected]

    @property
    def named(self) -> list[Run]:
        """The runs that a filter itself names, without what these need; learning rates are tried for them alone."""
        where = self.where
        if where is None:
            return [run for plan in self.plans for run in plan.runs]
        trials = () if self.trials is None else self.trials.runs
        return [*trials, *(run for run in self.selected.runs if where.matches(run))]

    @property
    def chosen(self) -> Collection[str]:
        """Settings that trials choose for every arm."""
        if self.searched is not None:
            return self.searched.search.space
        return () if self.trials is None else ("train.learning_rate",)

    @property
    def undecided(self) -> bool:
        if self.searched is not None:
            return not self.searched.decided
        return self.trials is not None and not self.choices


def make_work(
    experiment: Experiment,
    planned: Callable[[Experiment], Plan],
    pairs: Sequence[tuple[str, Any]],
    tune: bool | None,
    wanted: Wanted,
    where: Where | None = None,
) -> Work:
    """What there is to do.

    Args:
      planned: makes the plan of an experiment.
      pairs: the overrides it was made with.
      tune: whether to choose learning rates; None: as the experiment says, at scales where that means anything.
      wanted: the same of a search.
      where: of which runs.
    """
    plan = planned(experiment)
    search = wanted.of(experiment, plan.scale, tune)
    if search is None:
        return _with_trials(plan, tune, where)
    asked = _to_be_chosen_for(plan, where, search.space)
    searched = look(plan, search, pairs, [arm.name for arm in asked.arms])
    if not searched.subjects:  # all weights are given, or none of those asked for is searched
        return Work(plan, where=where)
    if searched.decided:
        plan = planned(with_points(experiment, searched.points))
    again = functools.partial(make_work, experiment, planned, pairs, tune, wanted, where)
    return Work(plan, searched.plan, where=where, searched=searched, again=again)


def _with_trials(plan: Plan, tune: bool | None, where: Where | None) -> Work:
    tuning = plan.experiment.tuning if tune is None and plan.scale.tune else None
    if tune:
        tuning = plan.experiment.tuning or Tuning()
    if tuning is None:
        return Work(plan, where=where)
    asked = _to_be_chosen_for(plan, where, ("train.learning_rate",))
    if not tuned(asked):  # all weights are given, or nothing asked for is trained
        return Work(plan, where=where)
    trials = grid_plan(asked, tuning)
    choices = choose(asked, trials, tuning)
    return Work(with_rates(plan, choices) if choices else plan, trials, choices, where)


def _to_be_chosen_for(plan: Plan, where: Where | None, chosen: Collection[str]) -> Plan:
    """The runs that a filter asks for, whatever their state and the settings to be chosen: both are those of what is
    chosen."""
    terms = () if where is None else where.terms
    lasting = tuple(one for one in terms if one.key != "state" and one.key not in chosen)
    if not lasting:
        return plan
    asked = select(plan, Where(lasting))
    trained = {run.arm.name for run in asked.runs if run.kind == "model"}  # not that in whose text n-grams are counted
    return dataclasses.replace(asked, arms=tuple(arm for arm in asked.arms if arm.name in trained))


def stay_off_accelerators() -> None:
    """This process only plans: on a TPU, or a GPU whose memory JAX would claim, it would keep its own workers out."""
    import jax

    jax.config.update("jax_platforms", "cpu")


# ----------------------------------------------------------------------------------------------------------------- plan


def plan(work: Work, executor: ExecutorConfig, console: Console) -> int:
    """Show variants, sizes and an estimate of time."""
    if work.searched is not None:
        show_search(work.searched, executor, console)
    for one in work.plans if work.searched is None else [work.plan]:
        _show_plan(one, executor, console)
    _warn(work, console)
    if work.searched is not None and work.undecided:
        console.print("the settings of the comparison are chosen when the search (above) is complete")
    elif work.undecided:
        console.print("the learning rates of the comparison are chosen when its trials (above) are finished")
    return 0


def _show_plan(plan: Plan, executor: ExecutorConfig, console: Console) -> None:
    sizes = engine.prepare(plan)
    table = Table(title=f"{plan.experiment.name} at scale {plan.scale.name}", title_justify="left")
    for name in ("variant", "parameters", "training FLOPs", "tokens", "runs", "finished", "what it is"):
        table.add_column(name, justify="left" if name in ("variant", "what it is") else "right", overflow="fold")
    for arm in plan.arms:
        size = sizes[arm.name]
        runs = [run for run in plan.runs if run.kind == "model" and run.variant == arm.name]
        finished = sum(run.is_finished() for run in runs)
        note = arm.variant.description
        if arm.variant.parent:
            what = "evaluated with" if not arm.variant.trains else "begins with"
            note = f"{note}; " * bool(note) + f"{what} the weights of {arm.variant.parent}"
        flops, tokens = (f"{size.flops:.3g}", f"{size.tokens:,}") if size.tokens else ("-", "-")
        numbers = (str(len(runs)), str(finished)) if runs else ("-", "-")
        table.add_row(arm.name, f"{size.parameters:,}", flops, tokens, *numbers, note)
    console.print(table)
    waiting, held = engine.pending(plan), engine.quarantined(plan)
    at_a_time = executor.make(needs_of(plan, sizes), plan.directory).parallel
    seeds = f"{len(plan.seeds)} seed{'s' if len(plan.seeds) > 1 else ''}"
    finished = sum(run.is_finished() for run in plan.runs)
    failed = f", {len(held)} failed" if held else ""
    console.print(f"{len(plan.runs)} runs ({seeds}, baseline included), {finished} finished{failed}")
    console.print(f"{at_a_time} at a time, {plan.threads} thread{'s' if plan.threads > 1 else ''} each")
    if waiting:
        guess = estimate(plan, sizes, waiting, at_a_time)
        console.print(f"estimate: {duration(guess.seconds)}, from {guess.basis}", highlight=False)


def _warn(work: Work, console: Console) -> None:
    """Say what arms differ in that the experiment does not name."""
    for sentence in unnamed_differences(work.plan, work.chosen):
        console.print(Text(f"warning: {sentence}", "yellow"), soft_wrap=True)


def forecast(plan: Plan, targets: Sequence[str], console: Console) -> int:
    """Compile what the plan trains for devices that are not here; the exit code."""
    from jaxgpt.parallel.targets import find_target
    from jaxgpt.train.forecast import Forecast, forecast
    from jaxgpt.train.forecast_table import forecast_table

    found_targets = [find_target(name) for name in targets]  # what is wrong is said before anything is compiled
    arms = [arm for arm in plan.arms if arm.variant.trains]
    code = 0
    for target in found_targets:
        found: dict[str, Forecast | str] = {}
        for arm in track(arms, f"compiling for {target.name}", console=Console(stderr=True), transient=True):
            try:
                found[arm.name] = forecast(arm.training, target)
            except ConfigError as error:
                found[arm.name], code = str(error), error.exit_code
        console.print(forecast_table(target, found))
    return code


# ----------------------------------------------------------------------------------------------------------- run, retry


@dataclasses.dataclass(frozen=True)
class Left:
    """What is not finished of runs that were started: what failed, and how many were cancelled."""

    failures: Sequence[Failure] = ()
    cancelled: int = 0

    @property
    def code(self) -> int:
        """The exit code that says so."""
        return 1 if self.failures else Interrupted.exit_code if self.cancelled else 0

    def __add__(self, other: Left) -> Left:
        return Left((*self.failures, *other.failures), self.cancelled + other.cancelled)


@dataclasses.dataclass(frozen=True)
class Session:
    """How runs are started. `options`: those that name the runs, for the index; `formats`: what the report is written
    as, beside CSV and PNG."""

    executor: ExecutorConfig
    options: Mapping[str, Any]
    command: str
    console: Console
    formats: Sequence[str] = ()

    def run(self, work: Work, report: bool) -> int:
        """Run what is pending, trials first, and report; the exit code."""
        left = Left()
        without: Sequence[Failure] = ()  # trials of a search that failed: it does without them
        if work.searched is not None:
            without, work = self._search(work, work.searched)
        elif work.trials is not None and work.undecided:
            self.console.print("choosing learning rates")
            left = self._run(work, work.trials)
            if not left.code:
                work = _with_trials(work.plan, True, work.where)
        try:
            if not left.code:
                _warn(work, self.console)
                left = self._run(work, work.selected)
                if report and (not left.cancelled or _has_results(work.selected)):
                    _report(work, self.command, self.console, self.formats)
        finally:
            print_failures([*without, *left.failures], self.console)
        return 1 if without else left.code

    def search(self, work: Work) -> int:
        """Try what is not tried yet, and show the best; the exit code."""
        if work.searched is None:
            self.console.print("all weights are given, or --where names no variant of the search: nothing to search")
            return 0
        failures, _ = self._search(work, work.searched)
        print_failures(failures, self.console)
        return 1 if failures else 0

    def _search(self, work: Work, searched: Searched) -> tuple[Sequence[Failure], Work]:
        """Go on with a search to its end: the trials that failed, and what there is to do then. Raises UserError where
        no point was found, and Interrupted."""
        directory, failed = work.plan.directory, ()
        if not searched.complete:
            failed = self._try(work.plan, searched)
            assert work.again is not None
            work = work.again()
            assert work.searched is not None
            searched = work.searched
        with locked(directory, wait=120.0):
            write_trials(directory / "report" / TRIALS, trial_rows(searched))
        self.console.print(search_table(searched))
        failures = engine.quarantined(searched.plan)
        held = {one.run.name for one in failures}
        failures += [one for one in failed if one.run.name not in held]  # on a full disk none could be put aside
        if not searched.decided:
            print_failures(failures, self.console)
            raise UserError(f"{directory}: {searched.why_undecided()}")
        return failures, work

    def _try(self, plan: Plan, searched: Searched) -> Sequence[Failure]:
        """Run trials until there are as many as wanted; those that failed. Raises Interrupted when told to stop."""
        largest = largest_plan(searched)
        sizes = engine.prepare(largest)
        executor = self.executor.make(needs_of(largest, sizes), plan.directory)

        def announce(runs: Collection[Run]) -> None:
            known = listed([trial_plan(plan, runs)])
            write_index(plan.directory, Index(self.options, encode(self.executor), known, self.command))

        trials = Trials(searched, sizes, announce)
        where = f"{plan.experiment.name}, scale {plan.scale.name}: search"
        every = searched.search.trials * len(searched.subjects)
        todo = f"{trials.total} of {every} trials to do, {executor.parallel} at a time, in {plan.directory}"
        self.console.print(Text(f"{where}: {todo}"), soft_wrap=True)
        nothing = dataclasses.replace(plan, runs=())
        executed = engine.execute(nothing, executor, sizes, self.console, source=trials)
        if executed.interrupted or executed.cancelled:
            how = "interrupted" if executed.interrupted else "cancelled"
            raise Interrupted(f"{where} {how}; the same command goes on from what was saved")
        return executed.failures

    def retry(self, work: Work) -> int:
        """Start what failed once more, and what waits for its weights; the exit code."""
        left = Left()
        for plan in work.plans:
            held = engine.to_retry(plan)
            if not held:
                continue
            names = {one.run.name for one in held}
            for one in held:
                words = Text.assemble((one.run.name, "bold"), f" failed: {one.message}; is started once more")
                self.console.print(words, soft_wrap=True)
                one.run.folder.release()
            for run in plan.runs:  # parents stand before their children
                if run.after in names:
                    names.add(run.name)
            runs = tuple(run for run in plan.runs if run.name in names)
            left += self._run(work, dataclasses.replace(plan, runs=runs))
        if not any(engine.quarantined(plan) for plan in work.plans) and not left.failures:
            self.console.print("nothing has failed (any more); `run` goes on with what is not finished")
        print_failures(left.failures, self.console)
        return left.code

    def _run(self, work: Work, plan: Plan) -> Left:
        """Execute what is pending; what is not finished after that. Raises Interrupted when told to stop."""
        sizes = engine.prepare(plan)
        waiting, held = engine.pending(plan), engine.quarantined(plan)
        where = f"{plan.experiment.name}, scale {plan.scale.name}"
        if held:
            self.console.print(
                Text(f"{where}: {len(held)} failed earlier and left out; `retry` starts them once more"), soft_wrap=True
            )
        if not waiting:
            if not held:
                self.console.print(Text(f"{where}: all {len(plan.runs)} runs are finished"), soft_wrap=True)
            return Left(held)
        executor = self.executor.make(needs_of(plan, sizes), plan.directory)
        everything = listed([work.plan] if work.trials is None else [work.trials, work.plan])
        write_index(plan.directory, Index(self.options, encode(self.executor), everything, self.command))
        todo = f"{len(waiting)} of {len(plan.runs)} runs to do, {executor.parallel} at a time, in {plan.directory}"
        self.console.print(Text(f"{where}: {todo}"), soft_wrap=True)
        executed = engine.execute(plan, executor, sizes, self.console)
        if executed.interrupted:
            raise Interrupted(f"{where}: interrupted; the same command goes on from what was saved")
        if executed.cancelled:
            self.console.print(f"{where}: {len(executed.cancelled)} runs were cancelled; `run` goes on with them")
        return Left([*held, *executed.failures], len(executed.cancelled))


# --------------------------------------------------------------------------------------------------------------- report


def report(work: Work, command: str, console: Console, formats: Sequence[str]) -> int:
    """Write what is finished as a report."""
    _report(work, command, console, formats)
    return 0


def _has_results(plan: Plan) -> bool:
    return any(run.kind == "model" and run.is_finished() for run in plan.runs)


def _report(work: Work, command: str, console: Console, formats: Sequence[str]) -> None:
    """Write the report and print its essence. That of some runs has a folder of its own beside that of all."""
    from jaxgpt.experiment.collect import make_report, print_report
    from jaxgpt.experiment.report import write_report

    directory = work.plan.directory
    words = "report" if work.where is None else f"report-{work.where}"
    name = short_name(re.sub(r"[^\w.=<>~|-]+", "_", words), words)
    if work.searched is not None and work.undecided:
        raise UserError(f"{directory}: {work.searched.why_undecided()}")
    if work.undecided:
        raise UserError(f"{directory}: its learning rates are not chosen yet; start the trials with the verb run")
    with locked(directory, wait=120.0):  # by another launcher that has just finished, too
        written = make_report(work.selected, command, work.choices, work.searched)
        index = write_report(written, directory / name, formats)
    print_report(written, index, console)


# ------------------------------------------------------------------------------------------------------- status, cancel


def status(runs: Sequence[Listed], directory: Path, console: Console, once: bool) -> int:
    """Show how far every run is."""
    states.show(runs, lambda: jobs_of(directory), console, watch=console.is_terminal and not once)
    return 0


def cancel(runs: Sequence[Listed], directory: Path, console: Console) -> int:
    """Ask those who execute these runs to stop, and a scheduler to forget those that wait."""
    jobs = jobs_of(directory)
    there = [run for run in runs if run.folder.path.exists() and run.state() not in ("finished", "failed")]
    busy = [run for run in there if run.name in jobs or run.state() == "running"]
    for run in there:  # those that wait for a slot of a launcher, too
        run.folder.cancel()
    cancel_jobs(directory, [run.name for run in busy if run.name in jobs])
    waiting = len(there) - len(busy)
    console.print(
        f"{len(busy)} runs are told to stop where they are, {waiting} are not started; `run` goes on with them"
    )
    return 0


# ---------------------------------------------------------------------------------------------------------------- clean


def clean(work: Work, directory: Path, console: Console, yes: bool) -> int:
    """Remove run folders, after asking. Without a filter those go that neither the plan nor what was started last nor a
    scheduler's queue names."""
    if work.where is None:
        started = read_index(directory)
        more = {*jobs_of(directory), *(run.name for run in (started.runs if started else ()))}
        found = cleaning.unused(directory, [run for plan in work.plans for run in plan.runs], more)
    else:
        check_exists(work.plan, work.where)
        found = cleaning.chosen(run for run in work.plan.runs if work.where.trains(run))
    if not found:
        console.print(f"{directory}: nothing to remove")
        return 0
    for one in found:
        console.print(Text(f"{one.path}  {one.size / 1e6:,.1f} MB  {one.why}"), soft_wrap=True)
    total = f"{len(found)} folders, {sum(one.size for one in found) / 1e6:,.1f} MB"
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"clean would remove {total}; say --yes where nobody can be asked")
        if console.input(f"remove {total}? [y/N] ").strip().lower() not in ("y", "yes"):
            console.print("nothing was removed")
            return 1
    left = cleaning.remove(found)
    for one in left:
        console.print(Text(f"{one.path}: a process is writing there; left"), soft_wrap=True)
    console.print(f"removed {len(found) - len(left)} of {total}")
    return 0
