"""From an experiment to its runs: every trained variant with every seed, in a folder named by what it depends on.

A variant that trains its parent's weights further has a run of its own, which comes after the parent's of the same seed
and whose hash covers the parent's.

Two hashes keep apart what costs much from what costs little. The training hash (seed, threads, model, data, train)
names the run folder; the evaluation hash (how to evaluate, the arm's model, the training hash) names a measurement in
it. So another context length never trains again, and an arm that evaluates another's weights lives in its parent's
folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxgpt.config import content_hash, decode, encode
from jaxgpt.errors import ConfigError
from jaxgpt.experiment.matching import Match, matching_width, measure
from jaxgpt.experiment.spec import BASELINE, SECTIONS, Experiment, Scale, Variant, data_kind, include, resolve
from jaxgpt.experiment.store import RunFolder, State
from jaxgpt.registry import kind_of, lookup

if TYPE_CHECKING:
    from jaxgpt.evaluate.config import EvaluationConfig
    from jaxgpt.models.base import ModelConfig
    from jaxgpt.train.run import RunConfig


UNSEEN = 2**22
"""Tokens that the n-gram learns from where nothing is trained."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A variant with its configuration resolved, for seed 0."""

    variant: Variant
    training: RunConfig  # the parent's, for an arm that only evaluates
    model: ModelConfig  # what is evaluated
    evaluation: EvaluationConfig
    length: int  # L, of which its claims' contexts are multiples: that of the data its weights were first trained on
    measured_in: int  # the L of which the contexts measured are multiples: its own, or in a group the first variant's

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def given(self) -> bool:
        """Whether its weights are given, those of a checkpoint as they are: no seed changes anything."""
        return not self.training.train.steps

    def identity(self) -> str:
        """Equal for two arms that would measure the same thing."""
        return content_hash([self.training, self.model], 64)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One measurement wanted of a run's weights."""

    variant: str
    hash: str
    model: dict[str, Any]  # encoded model configuration; empty for the baseline
    config: dict[str, Any]  # encoded EvaluationConfig
    length: int  # L in tokens


@dataclasses.dataclass(frozen=True)
class Run:
    """One folder to fill: train a model and evaluate it, or compute the n-gram baseline."""

    kind: Literal["model", "baseline"]
    variant: str
    seed: int
    hash: str
    arm: Arm  # what is trained; of the baseline, an arm with the same data
    config: dict[str, Any]  # encoded: a RunConfig, or the baseline's `data` and `ngram`
    folder: RunFolder
    evaluations: tuple[Evaluation, ...]
    after: str = ""  # name of the run whose weights it begins with
    serves: tuple[str, ...] = ()  # of the baseline: the variants beside which it stands, those with a parent left out
    may_diverge: bool = False  # that it did is a result, too: a learning rate that is too high
    study: str = ""  # of which it is a trial; what this study has pruned is done

    @property
    def name(self) -> str:
        return self.folder.path.name

    def is_finished(self) -> bool:
        wanted = [evaluation.hash for evaluation in self.evaluations]
        return self.folder.is_finished(wanted, self.may_diverge, self.study)

    def state(self) -> State:
        """The state of its folder, finished only with all evaluations that are wanted now."""
        state = self.folder.state()
        return "finished" if self.is_finished() else "trained" if state == "finished" else state

    @property
    def diverged(self) -> bool:
        """Whether the loss stopped being a number, where that is a result."""
        return self.may_diverge and self.folder.diverged

    @property
    def pruned(self) -> bool:
        """Whether its study ended it before its time."""
        return bool(self.study) and self.folder.pruned_by == self.study


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything one invocation is about. `directory` is RUNS_DIR/EXPERIMENT."""

    experiment: Experiment
    scale: Scale
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    runs: tuple[Run, ...]
    directory: Path

    @property
    def threads(self) -> int:
        return self.arms[0].training.threads

    @property
    def train_length(self) -> int:
        """L of the first variant, that contexts are compared with: for text the tokens of a training sequence."""
        return self.arms[0].length


def make_plan(
    experiment: Experiment,
    scale: Scale,
    configs: Path,
    runs_dir: Path,
    seeds: int | None = None,
    pairs: Sequence[tuple[str, Any]] = (),
) -> Plan:
    """Expand an experiment at a scale.

    Args:
      configs: the folder of configuration files.
      runs_dir: where the experiment's folder lies or will lie.
      seeds: number of seeds, counted from 0; None takes the scale's.
      pairs: overrides as (dotted path, value), above all other layers.

    Raises:
      ConfigError: a configuration is wrong, or two arms are the same.
    """
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds {seeds}: expected 1 or more")
    arms = _arms(experiment, scale, pairs, configs)
    _check_distinct(arms, experiment, scale, pairs, configs)
    directory = runs_dir / experiment.name
    scale = scale.on(kind_of(arms[0].training.data))
    numbers = tuple(range(scale.seeds if seeds is None else seeds))
    return expand(Plan(experiment, scale, numbers, arms, (), directory))


def expand(plan: Plan) -> Plan:
    """The plan with the runs that its arms and seeds ask for, the baseline first."""
    runs: list[Run] = []
    given: dict[str, Run] = {}
    for seed in plan.seeds:
        found = _runs(plan.arms, seed, plan.directory, given)
        given |= {run.variant: run for run in found if run.arm.given}
        runs += found
    return dataclasses.replace(plan, runs=(*_baselines(plan.arms, plan.directory), *runs))


# ---------------------------------------------------------------------------------------------------------------- arms


def _arms(experiment: Experiment, scale: Scale, pairs: Sequence[tuple[str, Any]], configs: Path) -> tuple[Arm, ...]:
    from jaxgpt.data.dataset import DataConfig  # these bring JAX, which --list and --help do not need
    from jaxgpt.evaluate.config import EvaluationConfig, default_evaluation
    from jaxgpt.experiment.given import given_by
    from jaxgpt.train.run import RunConfig, encode_defaults

    defaults = {name: value for name, value in encode_defaults().items() if name in SECTIONS and name != "seed"}
    given, base = given_by(experiment.folder, experiment.match), include(experiment.base, configs)
    arms: dict[str, Arm] = {}
    widths: dict[str, int | None] = {}  # of the feed-forward layers, where arms are made equally large
    for variant in sorted(experiment.variants, key=lambda variant: len(experiment.chain(variant))):
        kind = data_kind(experiment, variant, pairs, configs, given.data_kind if given else "text")
        defaults["evaluate"] = encode(default_evaluation(lookup(DataConfig, kind, "data.type")))
        below = given.below(defaults, kind, base) if given else defaults
        raw = resolve(experiment, scale.on(kind), variant, pairs, configs, below)
        evaluation = decode(EvaluationConfig, raw.pop("evaluate"), "evaluate")
        if given and variant.parent is None:
            raw = given.begin(raw, variant)
        config = decode(RunConfig, {**raw, "seed": 0})
        chain = experiment.chain(variant)
        if variant.parent is None:
            like = next((arm for arm in arms.values() if arm.variant.panel == variant.panel), None)
            widths[variant.name] = _matching_width(variant, config, like, experiment.match)
        if (width := widths[chain[0].name]) is not None:
            config = dataclasses.replace(config, model=config.model.with_hidden(width))
        if variant.parent is None:
            length = config.data.reference_length
            measured_in = next(iter(arms.values())).length if variant.group and arms else length
            model = _extended(config.model, variant, variant.overrides.get("extend"))
            config = dataclasses.replace(config, model=model)
            arm = Arm(variant, config, config.model, evaluation, length, measured_in)
        else:
            arm = _child(chain, config, evaluation, arms)
        arms[variant.name] = arm if width is None else _described(arm, f"feed-forward width {width}")
    return tuple(arms[variant.name] for variant in experiment.variants)


def _matching_width(variant: Variant, config: RunConfig, like: Arm | None, match: Match | None) -> int | None:
    """The feed-forward width that makes a variant as large as `like`, the first of its panel; None to leave it as it
    is."""
    if match is None or like is None:
        return None
    try:
        target = measure(like.model, match, like.training.data.sequence_length)
        return matching_width(config.model, match, config.data.sequence_length, target)
    except ConfigError as error:
        raise ConfigError(f"variant {variant.name!r}: {error}") from None


def _described(arm: Arm, more: str) -> Arm:
    description = "; ".join(filter(None, [arm.variant.description, more]))
    return dataclasses.replace(arm, variant=dataclasses.replace(arm.variant, description=description))


def _child(chain: Sequence[Variant], config: RunConfig, evaluation: EvaluationConfig, arms: Mapping[str, Arm]) -> Arm:
    """The arm of a variant with a parent, the last of `chain`, from its resolved configuration."""
    from jaxgpt.train.surgery import StartConfig

    root, parent, variant = arms[chain[0].name], arms[chain[-2].name], chain[-1]
    extension = next((one.overrides["extend"] for one in reversed(chain) if "extend" in one.overrides), None)
    # Longer sequences change no encoding: the weights are those of the first training length.
    model = _extended(dataclasses.replace(config.model, train_length=root.model.train_length), variant, extension)
    training = parent.training
    if variant.trains:
        rules = {**variant.overrides.get("start", {}), "hash": parent.training.hash}
        training = dataclasses.replace(config, model=model, start=decode(StartConfig, rules, "start"))
    return Arm(variant, training, model, evaluation, root.length, root.measured_in)


def _extended(model: ModelConfig, variant: Variant, extension: Any) -> ModelConfig:
    """The model with a variant's `extend` applied."""
    from jaxgpt.train.start import extended

    try:
        return extended(model, extension)
    except ConfigError as error:
        raise ConfigError(f"variant {variant.name!r}: {error}") from None


def _equal_arms(arms: Sequence[Arm]) -> tuple[str, str] | None:
    seen: dict[str, str] = {}
    for arm in arms:
        first = seen.setdefault(arm.identity(), arm.name)
        if first != arm.name:
            return first, arm.name
    return None


def _check_distinct(
    arms: Sequence[Arm], experiment: Experiment, scale: Scale, pairs: Sequence[tuple[str, Any]], configs: Path
) -> None:
    """Two arms that are the same thing would be compared with themselves: name them and the setting that did it."""
    equal = _equal_arms(arms)
    if equal is None:
        return
    for count in range(len(pairs)):
        try:
            before = _equal_arms(_arms(experiment, scale, pairs[:count], configs))
            after = _equal_arms(_arms(experiment, scale, pairs[: count + 1], configs))
        except ConfigError:  # settings that only hold together
            continue
        if before is None and after is not None:
            path, value = pairs[count]
            raise ConfigError(
                f"--set {path}={value}: makes the variants {after[0]!r} and {after[1]!r} equal; that is theirs to set"
            )
    how = f"scale {scale.name}" if not pairs else "--set " + " ".join(f"{path}={value}" for path, value in pairs)
    raise ConfigError(f"experiment {experiment.name}: the variants {equal[0]!r} and {equal[1]!r} are equal with {how}")


# ---------------------------------------------------------------------------------------------------------------- runs


def _runs(arms: Sequence[Arm], seed: int, directory: Path, given: Mapping[str, Run]) -> list[Run]:
    """One run per trained variant, holding the evaluations of its own arm and of those that use its weights as they
    are. Runs that begin with another's weights stand behind it. `given`: runs of an earlier seed that serve all."""
    runs = dict(given)
    waiting = [arm for arm in arms if arm.variant.trains and arm.name not in given]
    while waiting:
        arm = next(arm for arm in waiting if arm.variant.parent is None or arm.variant.parent in runs)
        waiting.remove(arm)
        config, after = dataclasses.replace(arm.training, seed=seed), ""
        if config.start is not None and arm.variant.parent is not None:  # without a parent it begins with a checkpoint
            parent = runs[arm.variant.parent]
            after = parent.name
            start = dataclasses.replace(config.start, hash=parent.hash, folder=str(parent.folder.path))
            config = dataclasses.replace(config, start=start)
        served = [arm, *(other for other in arms if other.variant.parent == arm.name and not other.variant.trains)]
        evaluations = tuple(_evaluation(other, config.hash) for other in served)
        folder = RunFolder(directory / f"{arm.name}-seed{seed}-{config.hash}")
        run = Run("model", arm.name, seed, config.hash, arm, encode(config), folder, evaluations, after)
        runs[arm.name] = run
    return [run for name, run in runs.items() if name not in given]


def _evaluation(arm: Arm, training: str) -> Evaluation:
    config = _without_ngram(arm)
    parts = {"evaluate": config, "model": arm.model, "training": training, "length": arm.measured_in}
    return Evaluation(arm.name, content_hash(parts), encode(arm.model), encode(config), arm.measured_in)


def _without_ngram(arm: Arm) -> EvaluationConfig:
    """An arm's evaluation without the baseline: another n-gram measures no model again."""
    return dataclasses.replace(arm.evaluation, ngram=None)


def _baselines(arms: Sequence[Arm], directory: Path) -> list[Run]:
    """The n-gram on as many tokens as the models see, once for every corpus and number of tokens. Seedless: seed 0.

    Where there are several, each is named after the first variant it belongs to.
    """
    runs: dict[str, Run] = {}
    most = max(arm.training.tokens for arm in arms) or UNSEEN  # beside weights that are given, which saw other text
    for arm in arms:
        if arm.variant.parent is not None or arm.evaluation.ngram is None:
            continue
        data, evaluate = arm.training.data, _without_ngram(arm)
        if arm.variant.group:  # the n-gram of the first arm serves all: it sees no sequences
            data = dataclasses.replace(data, sequence_length=arm.measured_in)
        seen = arm.evaluation.ngram.max_tokens or arm.training.tokens or most
        ngram = dataclasses.replace(arm.evaluation.ngram, max_tokens=seen)
        digest = content_hash({"data": data, "ngram": ngram, "evaluate": evaluate})
        folder = RunFolder(directory / f"baseline-{digest}")
        evaluation = Evaluation(BASELINE, digest, {}, encode(evaluate), arm.measured_in)
        config = {"data": encode(data), "ngram": encode(ngram)}
        first = runs.get(digest) or Run("baseline", BASELINE, 0, digest, arm, config, folder, (evaluation,))
        runs[digest] = dataclasses.replace(first, serves=(*first.serves, arm.name))
    if len(runs) < 2:
        return list(runs.values())
    return [_named(run, f"{BASELINE} ({run.arm.name})") for run in runs.values()]


def _named(run: Run, name: str) -> Run:
    evaluations = tuple(dataclasses.replace(evaluation, variant=name) for evaluation in run.evaluations)
    return dataclasses.replace(run, variant=name, evaluations=evaluations)
