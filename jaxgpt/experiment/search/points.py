"""What a search is about and how far it is: its variants, their points as runs, the best of each."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jaxgpt.config import content_hash, decode, encode, override
from jaxgpt.errors import ConfigError
from jaxgpt.experiment.plan import Arm, Plan, Run, expand
from jaxgpt.experiment.search.space import Choice, Float, Search, Value
from jaxgpt.experiment.search.study import Study, Trial, need_optuna, open_studies
from jaxgpt.experiment.spec import Experiment, Scale
from jaxgpt.experiment.store import RunFolder
from jaxgpt.experiment.tuning import FIRST_SEED, shortened, trial_arm, tuned

if TYPE_CHECKING:
    from jaxgpt.train.run import RunConfig

Point = Mapping[str, Value]
State = Literal["finished", "pruned", "diverged", "failed", "impossible", "unfinished"]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A variant that is searched: its arm, what a trial trains where no setting is changed, and its study's name."""

    plan: Plan
    arm: Arm
    config: RunConfig
    study: str

    def run(self, point: Point) -> Run:
        """The run of a point. Raises ConfigError where there can be none."""
        from jaxgpt.train.run import RunConfig

        raw = override(encode(self.config), in_order(point))
        config = decode(RunConfig, {**raw, "seed": FIRST_SEED})
        name = f"search-{self.arm.name}-{config.hash}"
        words = ", ".join(f"{path} {shown(value)}" for path, value in point.items())
        arm = trial_arm(self.arm, name, config, words)
        [run] = expand(dataclasses.replace(self.plan, seeds=(FIRST_SEED,), arms=(arm,), runs=())).runs
        return dataclasses.replace(
            run, folder=RunFolder(self.plan.directory / name), may_diverge=True, study=self.study
        )


def in_order(point: Point) -> list[tuple[str, Value]]:
    """The settings of a point as overrides: kinds before what lies below them."""
    return sorted(point.items(), key=lambda pair: (not pair[0].endswith(".type"), pair[0]))


def shown(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------------- what is wanted


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a call says of searching: whether (None: as the experiment says, at scales where that means anything), and
    how many trials (None: likewise)."""

    search: bool | None = None
    trials: int | None = None

    def of(self, experiment: Experiment, scale: Scale, tune: bool | None) -> Search | None:
        """The search to make, if any. Raises ConfigError for what contradicts itself."""
        search = experiment.search
        wanted = scale.tune and search is not None if self.search is None else self.search
        if not wanted:
            if self.trials is not None:
                raise ConfigError("--trials: nothing is searched here; say --search, of an experiment with search()")
            return None
        if search is None:
            raise ConfigError(f"experiment {experiment.name}: has no search() that says what to try; define one there")
        if tune:
            raise ConfigError("--tune: a search chooses settings already; say --no-search, too")
        return search if self.trials is None else dataclasses.replace(search, trials=self.trials)


def subjects(plan: Plan, search: Search, pairs: Sequence[tuple[str, Any]]) -> list[Subject]:
    """The variants to search; none where all weights are given.

    Raises ConfigError for a variant that cannot be searched, for data without a tuning split, and for a setting that
    does not exist, changes nothing, has values that are not possible, or is decided already.
    """
    where = f"experiment {plan.experiment.name}: search()"
    possible = {arm.name: arm for arm in tuned(plan)}
    for name in search.variants:
        if name not in possible:
            raise ConfigError(
                f"{where}: variants: {name!r} is not trained from the start; search that which it follows"
            )
    layer = override({}, pairs)
    for path in search.space:
        if _says(layer, path):
            raise ConfigError(f"{path}: is what the search chooses; leave it out of --set and --config, or --no-search")
        if plan.experiment.match and path.startswith("model."):
            raise ConfigError(f"{where}: {path}: match() decides the size of models; search settings of train only")
    found = [_subject(plan, search, possible[name]) for name in search.variants or possible]
    for subject in found:
        here = f"{where}, variant {subject.arm.name!r}"
        for path, values in search.space.items():
            _check_range(subject, path, values.ends(), isinstance(values, Float), here)
    return found


def _subject(plan: Plan, search: Search, arm: Arm) -> Subject:
    config = shortened(arm.training, search)
    if search.pruner is not None:  # validation losses are no part of a run's name
        every = max(1, int(search.pruner.every * config.train.steps))
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, validate_every=every))
    evaluation = trial_arm(arm, arm.name, config, "").evaluation
    digest = content_hash({"config": config, "evaluation": evaluation, "search": search.identity()})
    return Subject(plan, arm, config, f"{arm.name}-{digest}")


def _says(layer: Any, path: str) -> bool:
    """Whether a layer of overrides decides what lies at a path."""
    for part in path.split("."):
        if not isinstance(layer, Mapping):
            return True
        if part not in layer:
            return False
        layer = layer[part]
    return True


def _check_range(subject: Subject, path: str, ends: Sequence[Value], strict: bool, where: str) -> None:
    """Try the ends alone: all must be possible where `strict`, else one (others may be beside other settings)."""
    hashes, errors = [], []
    for value in ends:
        try:
            hashes.append(subject.run({path: value}).hash)
        except ConfigError as error:
            errors.append(error)
    if errors and (strict or not hashes):
        said = str(errors[0])
        raise ConfigError(f"{where}: {said if said.startswith(path) else f'{path}: {said}'}")
    if len(hashes) > 1 and len(set(hashes)) == 1:
        raise ConfigError(f"{where}: {path}: changes nothing that a run's result depends on")


def with_points(experiment: Experiment, points: Mapping[str, Point]) -> Experiment:
    """The experiment with these settings in its variants, and so in all that descend from them."""
    variants = tuple(
        dataclasses.replace(one, overrides=override(one.overrides, in_order(points.get(one.name, {}))))
        for one in experiment.variants
    )
    return dataclasses.replace(experiment, variants=variants)


# -------------------------------------------------------------------------------------------------------- what is there


@dataclasses.dataclass(frozen=True)
class Seen:
    """A trial, its run (None where its point is impossible), and what became of it."""

    trial: Trial
    run: Run | None
    state: State

    @property
    def loss(self) -> float | None:
        """Nats per token: the score, of one that was pruned its last validation loss; None where there is none."""
        loss = self.trial.loss
        return loss if loss is not None and math.isfinite(loss) else None


@dataclasses.dataclass(frozen=True)
class Found:
    """What the trials of one variant say."""

    variant: str
    trials: tuple[Seen, ...]
    importances: Mapping[str, float]

    @property
    def best(self) -> Seen | None:
        """The finished trial of the lowest loss, of equal ones the first."""
        done = [one for one in self.trials if one.state == "finished" and one.loss is not None]
        return min(done, key=lambda one: one.loss or 0.0, default=None)

    def count(self, state: State) -> int:
        return sum(one.state == state for one in self.trials)

    def states(self) -> list[State]:
        """Those that occur."""
        return list(dict.fromkeys(one.state for one in self.trials))


@dataclasses.dataclass(frozen=True)
class Searched:
    """How far a search is."""

    search: Search
    subjects: Sequence[Subject]
    found: Sequence[Found]

    @property
    def complete(self) -> bool:
        """Whether as many trials as wanted came to an end."""
        return all(len(one.trials) >= self.search.trials and not one.count("unfinished") for one in self.found)

    @property
    def decided(self) -> bool:
        """Whether every variant has a best point."""
        return self.complete and all(one.best for one in self.found)

    @property
    def points(self) -> dict[str, Point]:
        """Variant -> its best point, of those that have one."""
        return {one.variant: one.best.trial.point for one in self.found if one.best}

    @property
    def plan(self) -> Plan:
        """The runs of all trials, each once."""
        runs = {seen.run.name: seen.run for one in self.found for seen in one.trials if seen.run is not None}
        return trial_plan(self.subjects[0].plan, runs.values())

    def why_undecided(self) -> str:
        """What is missing, for people."""
        if not self.complete:
            return "the search is not complete yet; go on with it: search"
        barren = next(one for one in self.found if not one.best)
        states = ", ".join(f"{barren.count(s)} {s}" for s in barren.states())
        return f"no trial of {barren.variant} has a loss ({states}); change the space of search(), or fix what failed"


def look(
    plan: Plan, search: Search, pairs: Sequence[tuple[str, Any]], among: Collection[str] | None = None
) -> Searched:
    """What the studies and run folders say of a search, of all variants or of those named; nothing is changed. Raises
    ConfigError as `subjects` does."""
    need_optuna()
    wanted = [one for one in subjects(plan, search, pairs) if among is None or one.arm.name in among]
    steps = {one.study: one.config.train.steps for one in wanted}
    studies = open_studies(plan.directory, search, steps, create=False)
    return Searched(search, wanted, [_found(one, studies.get(one.study), search) for one in wanted])


def _found(subject: Subject, study: Study | None, search: Search) -> Found:
    if study is None:
        return Found(subject.arm.name, (), {})
    seen = tuple(_seen(subject, trial, search) for trial in study.trials())
    return Found(subject.arm.name, seen, study.importances())


def _seen(subject: Subject, trial: Trial, search: Search) -> Seen:
    if trial.state == "impossible" or trial.point.keys() != search.space.keys():
        return Seen(trial, None, "impossible" if trial.state == "impossible" else "unfinished")
    run = subject.run(trial.point)
    if trial.state == "told":
        return Seen(trial, run, "finished" if math.isfinite(trial.loss or 0.0) else "diverged")
    if trial.state == "pruned":
        return Seen(trial, run, "pruned")
    failed = run.folder.quarantined() is not None and not run.is_finished()
    return Seen(trial, run, "failed" if failed else "unfinished")


def trial_plan(plan: Plan, runs: Collection[Run]) -> Plan:
    """These trials as a plan of their own, in the same folder."""
    arms = tuple(run.arm for run in runs)
    experiment = dataclasses.replace(plan.experiment, variants=tuple(arm.variant for arm in arms), claims=())
    return Plan(experiment, plan.scale, (FIRST_SEED,), arms, tuple(runs), plan.directory)


def typical_plan(searched: Searched) -> Plan:
    """As many runs as trials are still to come, with the variants' own settings: what they may cost."""
    plan = searched.subjects[0].plan
    runs: list[Run] = []
    for subject, found in zip(searched.subjects, searched.found, strict=True):
        left = searched.search.trials - len(found.trials) + found.count("unfinished")
        arm = trial_arm(subject.arm, subject.arm.name, subject.config, "")
        seeds = tuple(range(FIRST_SEED, FIRST_SEED + max(0, left)))
        runs += expand(dataclasses.replace(plan, seeds=seeds, arms=(arm,), runs=())).runs
    return dataclasses.replace(plan, arms=tuple({run.arm.name: run.arm for run in runs}.values()), runs=tuple(runs))


def largest_plan(searched: Searched) -> Plan:
    """Every variant's own trial, and those at the upper ends: none needs more memory."""
    runs: dict[str, Run] = {}
    for subject in searched.subjects:
        space = searched.search.space
        points = [{}, *({path: value} for path, values in space.items() for value in values.ends())]
        points.append({path: values.ends()[-1] for path, values in space.items() if not isinstance(values, Choice)})
        for point in points:
            with contextlib.suppress(ConfigError):
                run = subject.run(point)
                runs.setdefault(content_hash([run.arm.model, run.arm.training.train.batch_size]), run)
    return trial_plan(searched.subjects[0].plan, runs.values())
