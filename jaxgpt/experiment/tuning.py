"""Learning rates chosen per variant, before the comparison: a small sweep of runs like any others.

Each variant that is trained from the start is trained at every rate of the grid, for part of its steps, on the training
documents less some held out to score it; the evaluation documents take no part. The comparison then uses the rate of
the lowest loss. Variants that train another's weights further keep their own relation to that one's rate.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxgpt.experiment.plan import Arm, Plan, Run, expand
from jaxgpt.experiment.spec import Tuning, Variant

if TYPE_CHECKING:
    from jaxgpt.experiment.search import Search
    from jaxgpt.train.run import RunConfig

FIRST_SEED = 1000
"""Trials draw other initial values and other batches than the comparison."""

METRIC = "non_overlapping_nll"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the trials of one variant say.

    `losses` are nats per token by factor, the mean over seeds, infinite where a trial diverged; `tokens` and `seconds`
    are the cost of all its trials (training only, as a clock measured it).
    """

    variant: str
    base_rate: float
    losses: dict[float, float]
    tokens: int
    seconds: float

    @property
    def factor(self) -> float:
        """The factor of the lowest loss; of equal ones that nearest to 1."""
        return min(self.losses, key=lambda factor: (self.losses[factor], abs(math.log(factor))))

    @property
    def rate(self) -> float:
        return self.base_rate * self.factor

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or highest tried: beyond it may lie a better one."""
        return self.factor in (min(self.losses), max(self.losses))


def grid_plan(plan: Plan, tuning: Tuning) -> Plan:
    """The trials, as a plan of their own in the same folder. Raises ConfigError where the data have no tuning split."""
    arms = []
    for arm in tuned(plan):
        for factor in tuning.factors:
            rate = arm.training.train.learning_rate * factor
            config = shortened(arm.training, tuning)
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, learning_rate=rate))
            arms.append(trial_arm(arm, _trial(arm.name, factor), config, f"learning rate {rate:g}"))
    experiment = dataclasses.replace(plan.experiment, variants=tuple(arm.variant for arm in arms), claims=())
    seeds = tuple(FIRST_SEED + number for number in range(tuning.seeds))
    grid = expand(Plan(experiment, plan.scale, seeds, tuple(arms), (), plan.directory))
    return dataclasses.replace(grid, runs=tuple(dataclasses.replace(run, may_diverge=True) for run in grid.runs))


def shortened(config: RunConfig, how: Tuning | Search) -> RunConfig:
    """What a trial of a run trains: a share of its steps, on the training documents less some held out. Raises
    ConfigError where the data have no tuning split."""
    train = dataclasses.replace(config.train, steps=max(1, int(config.train.steps * how.steps)))
    return dataclasses.replace(config, data=config.data.for_tuning(how.fraction), train=train)


def trial_arm(arm: Arm, name: str, config: RunConfig, description: str) -> Arm:
    """A trial of an arm: scored at the arm's training length."""
    from jaxgpt.evaluate.config import EvaluationConfig
    from jaxgpt.evaluate.protocols.non_overlapping import NonOverlappingConfig

    protocol = NonOverlappingConfig(multiples=(1.0,), stretches=128)
    evaluation = EvaluationConfig({"non_overlapping": protocol}, ngram=None)
    return Arm(Variant(name, description=description), config, config.model, evaluation, arm.length, arm.length)


def choose(plan: Plan, grid: Plan, tuning: Tuning) -> list[Choice]:
    """The choice for every tuned variant, empty while any trial is unfinished."""
    if not all(run.is_finished() for run in grid.runs):
        return []
    choices = []
    for arm in tuned(plan):
        losses, runs = {}, []
        for factor in tuning.factors:
            trials = [run for run in grid.runs if run.variant == _trial(arm.name, factor)]
            losses[factor] = statistics.mean(loss_of(run) for run in trials)
            runs += trials
        costs = [cost_of(run) for run in runs]
        tokens, seconds = sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)
        choices.append(Choice(arm.name, arm.training.train.learning_rate, losses, tokens, seconds))
    return choices


def with_rates(plan: Plan, choices: Sequence[Choice]) -> Plan:
    """The plan with every variant at its chosen learning rate."""
    factors = {choice.variant: choice.factor for choice in choices}
    trainings, arms = {}, []
    for arm in sorted(plan.arms, key=lambda arm: len(plan.experiment.chain(arm.variant))):
        if arm.variant.trains:
            config = arm.training
            factor = factors.get(plan.experiment.chain(arm.variant)[0].name, 1.0)
            train = dataclasses.replace(config.train, learning_rate=config.train.learning_rate * factor)
            trainings[arm.name] = dataclasses.replace(config, train=train)
        arms.append(
            dataclasses.replace(arm, training=trainings[arm.name if arm.variant.trains else arm.variant.parent])
        )
    found = {arm.name: arm for arm in arms}
    return expand(dataclasses.replace(plan, arms=tuple(found[arm.name] for arm in plan.arms)))


def rows(choices: Sequence[Choice]) -> list[dict[str, object]]:
    """A line per variant for the report: the loss at every rate, the choice and what it cost."""
    lines = []
    for choice in choices:
        line: dict[str, object] = {"variant": choice.variant}
        for factor, loss in choice.losses.items():
            line[f"loss at {factor:g}x"] = f"{loss:.4f}" if math.isfinite(loss) else "diverged"
        line |= {"chosen": choice.rate, "tokens": choice.tokens, "seconds": round(choice.seconds)}
        lines.append(line)
    return lines


def warnings(choices: Sequence[Choice]) -> list[str]:
    """A sentence for every variant whose best rate is at an edge of the grid."""
    return [
        f"{choice.variant}: its best learning rate, {choice.rate:g}, is at an edge of the grid; beyond it may lie a "
        "better one"
        for choice in choices
        if choice.at_edge
    ]


def tuned(plan: Plan) -> list[Arm]:
    """The arms whose settings may be chosen: those trained, and not from another's weights."""
    return [arm for arm in plan.arms if arm.variant.parent is None and not arm.given]


def _trial(variant: str, factor: float) -> str:
    return f"tuning-{variant}-{factor:g}x"


def loss_of(run: Run) -> float:
    """The score of a finished trial in nats per token, infinite where it diverged."""
    if run.diverged:
        return math.inf
    measured = run.folder.evaluations()[run.evaluations[0].hash]["measurements"]
    return next((one["value"] for one in measured if one["metric"] == METRIC), math.inf)


def cost_of(run: Run) -> tuple[int, float]:
    """Tokens and seconds of a trial's training, as far as it came."""
    pace = run.folder.pace()
    if pace is None:
        return 0, 0.0
    _, tokens, speed = pace
    return tokens, tokens / speed
