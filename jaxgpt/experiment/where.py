"""Some runs of a plan: `--where 'variant=rope|alibi,seed<2'`.

A filter is a list of terms KEY OPERATOR VALUE with commas between them, and all of them must hold. Keys are

    variant  seed  state  kind  panel  group     of the run; kinds are `model` and `baseline`
    model.position.type  train.learning_rate ...  any setting of its resolved configuration

and operators `=` and `!=` (`a|b`: one of several values), `<`, `<=`, `>`, `>=` (numbers) and `~` (a shell pattern such
as `rope*`, several with `|`). A mapping with a `type` is compared by that. `null` is the value of a setting that has
none; a setting that a run does not have at all is unequal to everything.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, get_args

from jaxgpt.errors import ConfigError, nearest
from jaxgpt.experiment.plan import Evaluation, Plan, Run
from jaxgpt.experiment.store import State

KEYS = ("variant", "seed", "state", "kind", "panel", "group")
_SECTIONS = ("threads", "model", "data", "train", "start", "ngram")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TERM = re.compile(r"\s*([\w.]+)\s*(<=|>=|!=|=|<|>|~)\s*(.+?)\s*")
_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Term:
    """One condition; `values` are as they were typed."""

    key: str
    operator: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{'|'.join(self.values)}"

    def holds(self, actual: Any) -> bool:
        """Whether it holds for the value of its key. Raises ConfigError where the two cannot be compared."""
        if isinstance(actual, Mapping) and "type" in actual:
            actual = actual["type"]
        if isinstance(actual, Mapping | list | tuple):
            below = nearest("", actual) if isinstance(actual, Mapping) else ""
            raise ConfigError(f"--where {self}: {self.key} is not one value{below or '; filter by another setting'}")
        if self.operator in ("=", "!="):
            return any(self._equals(actual, value) for value in self.values) == (self.operator == "=")
        if actual is None or actual is _ABSENT:
            return False
        if self.operator == "~":
            if not isinstance(actual, str):
                raise ConfigError(f"--where {self}: ~ compares texts, and {self.key} is {actual!r}; use = or <")
            return any(fnmatchcase(actual, pattern) for pattern in self.values)
        if isinstance(actual, bool) or not isinstance(actual, int | float):
            raise ConfigError(f"--where {self}: {self.operator} compares numbers, and {self.key} is {actual!r}; use =")
        return _ORDER[self.operator](actual, float(self.values[0]))

    def _equals(self, actual: Any, value: str) -> bool:
        if actual is _ABSENT:
            return False
        if actual is None or value == "null":
            return actual is None and value == "null"
        if isinstance(actual, bool):
            if value not in ("true", "false"):
                raise ConfigError(f"--where {self}: {self.key} is true or false, not {value!r}")
            return actual == (value == "true")
        if isinstance(actual, int | float):
            return actual == _number(value, str(self))
        return actual == value


@dataclasses.dataclass(frozen=True)
class Where:
    """A filter of runs."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))

    def matches(self, run: Run) -> bool:
        """Whether the run, or a variant that is evaluated with its weights, is one of those asked for."""
        return any(self.measures(run, evaluation) for evaluation in run.evaluations)

    def trains(self, run: Run) -> bool:
        """Whether the run itself is one of those asked for."""
        return self.measures(run, run.evaluations[0])

    def measures(self, run: Run, evaluation: Evaluation) -> bool:
        """Whether one of the run's evaluations is asked for: its variant, and the model as it is evaluated. Panel and
        group are those of the variant that was trained; a run that no seed decides has them all."""
        return all(
            (term.key == "seed" and _seedless(run)) or term.holds(_value(term.key, run, evaluation))
            for term in self.terms
        )

    def leaves_out(self, baseline: Run) -> bool:
        """Whether it says itself that the baseline is not wanted, by its kind or by `variant!=`."""
        said = [term for term in self.terms if term.key == "kind" or (term.key, term.operator) == ("variant", "!=")]
        return not all(term.holds(_value(term.key, baseline, baseline.evaluations[0])) for term in said)

    def asks_for(self, baseline: Run) -> bool:
        """Whether the baseline is wanted for itself: its name is, or there is no more to it than kind and state."""
        named = any(term.key == "variant" and term.operator in ("=", "~") for term in self.terms)
        keys = {term.key for term in self.terms} - {"seed"}
        return self.matches(baseline) and (named or (bool(keys) and keys <= {"kind", "state"}))

    def seeds(self, plan: Plan) -> tuple[int, ...]:
        """Those of the plan's seeds that are asked for."""
        terms = [term for term in self.terms if term.key == "seed"]
        return tuple(seed for seed in plan.seeds if all(term.holds(seed) for term in terms))


def parse_where(text: str) -> Where:
    """The filter that a text describes, such as `variant=alibi,seed<2`.

    Raises ConfigError for what is no term, an unknown key, and an operator or a value that does not fit its key.
    """
    return Where(tuple(_term(part) for part in text.split(",")))


def _term(part: str) -> Term:
    match = _TERM.fullmatch(part)
    if match is None or match[3].startswith("="):
        raise ConfigError(
            f"--where {part!r}: expected KEY and VALUE with one of = != < <= > >= ~ between them, such as seed<2; "
            "terms have commas between them"
        )
    key, sign = match[1], match[2]
    values = [value.strip() for value in match[3].split("|")]
    term = Term(key, sign, tuple(values))
    if not all(values):
        raise ConfigError(f"--where {term}: a value is empty")
    if key not in KEYS and key.partition(".")[0] not in _SECTIONS:
        raise ConfigError(f"--where {term}: no such key as {key!r}{nearest(key, [*KEYS, *_SECTIONS])}")
    if sign in _ORDER:
        if key in KEYS and key != "seed":
            raise ConfigError(f"--where {term}: {sign} compares numbers, and {key} is a text; use =, != or ~")
        if len(values) > 1:
            raise ConfigError(f"--where {term}: {sign} takes one number")
        _number(values[0], str(term))
    if key == "seed" and sign == "~":
        raise ConfigError(f"--where {term}: ~ compares texts, and seed is a number; use =, != or <")
    known = {"state": get_args(State), "kind": ("model", "baseline")}.get(key)
    if sign != "~" and known is not None:
        _check_known(term, known)
    return term


def _check_known(term: Term, known: Iterable[str]) -> None:
    there = set(known)
    for value in term.values:
        if value not in there:
            raise ConfigError(f"--where {term}: no {term.key} is {value!r}{nearest(value, there)}")


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--where {where}: {text!r} is not a number") from None


# -------------------------------------------------------------------------------------------------------------- of runs


def _seedless(run: Run) -> bool:
    return run.kind == "baseline" or run.arm.given


def _value(key: str, run: Run, evaluation: Evaluation) -> Any:
    """What a run has for a key; `_ABSENT` where its configuration has no such setting."""
    if key in ("panel", "group"):
        return getattr(run.arm.variant, key) if run.kind == "model" else ""
    if key in KEYS:
        return (
            run.state() if key == "state" else {"variant": evaluation.variant, "seed": run.seed, "kind": run.kind}[key]
        )
    value: Any = _configuration(run, evaluation)
    for part in key.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value


def _configuration(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    return run.config | ({"model": evaluation.model} if evaluation.model else {})


def select(plan: Plan, where: Where) -> Plan:
    """The plan with those of its runs that a filter asks for, and what these need: the runs whose weights they begin
    with, and their baselines, unless the filter leaves those out by kind or by `variant!=`. Of a run's evaluations
    those asked for stay, with that of the variant whose weights they use. Seeds and arms without a run leave the plan.

    Selecting comes last: a plan made anew from the arms of a selection, such as that of chosen learning rates, has all
    their runs again.

    Raises ConfigError where nothing is left, and for values and settings that no run of the plan has.
    """
    check_exists(plan, where)
    named = {run.name: run for run in plan.runs}
    kept: dict[str, Run] = {}
    for run in plan.runs:
        wanted = tuple(one for one in run.evaluations if where.measures(run, one))
        if wanted and run.kind == "model":
            kept[run.name] = _with_evaluations(run, {run.variant, *(one.variant for one in wanted)})
            while run.after and run.after not in kept:  # that one may begin with another's, too
                run = named[run.after]
                kept[run.name] = _with_evaluations(run, {run.variant})
    measured = {one.variant for run in kept.values() for one in run.evaluations}
    baselines = [_beside(plan, run, measured, where) for run in plan.runs if run.kind == "baseline"]
    runs = (*(run for run in baselines if run is not None), *(kept[run.name] for run in plan.runs if run.name in kept))
    if not (runs and where.seeds(plan)):
        variants, seeds = ", ".join(arm.name for arm in plan.arms), ", ".join(map(str, plan.seeds))
        raise ConfigError(f"--where {where}: selects no run; variants are {variants}, seeds {seeds}")
    return _restricted(plan, runs, measured | {run.arm.name for run in runs}, where.seeds(plan))


def _with_evaluations(run: Run, variants: set[str]) -> Run:
    return dataclasses.replace(run, evaluations=tuple(one for one in run.evaluations if one.variant in variants))


def _beside(plan: Plan, baseline: Run, measured: set[str], where: Where) -> Run | None:
    """The baseline if it stands beside any of the variants measured or is asked for itself, with an arm that stays."""
    roots = {plan.experiment.chain(arm.variant)[0].name for arm in plan.arms if arm.name in measured}
    beside = [arm for arm in plan.arms if arm.name in roots and arm.name in baseline.serves]
    if beside and not where.leaves_out(baseline):
        return dataclasses.replace(baseline, arm=beside[0])
    return baseline if where.asks_for(baseline) else None


def _restricted(plan: Plan, runs: tuple[Run, ...], names: set[str], asked: tuple[int, ...]) -> Plan:
    """The plan with these runs, the arms named, and those seeds of the ones asked for that any run has; the first of
    them where no seed decides anything."""
    seeds = {run.seed for run in runs if not _seedless(run)}
    variants = tuple(variant for variant in plan.experiment.variants if variant.name in names)
    return dataclasses.replace(
        plan,
        experiment=dataclasses.replace(plan.experiment, variants=variants),
        seeds=tuple(seed for seed in plan.seeds if seed in seeds) or asked[:1],
        arms=tuple(arm for arm in plan.arms if arm.name in names),
        runs=runs,
    )


# -------------------------------------------------------------------------------------------------------- what there is


def check_exists(plan: Plan, where: Where) -> None:
    """Raise ConfigError where a filter names a variant, seed, panel, group or setting that the plan does not have."""
    for term in where.terms:
        _check_term(plan, term)


def _check_term(plan: Plan, term: Term) -> None:
    evaluated = [(run, evaluation) for run in plan.runs for evaluation in run.evaluations]
    if term.key in ("panel", "group", "variant") and term.operator != "~":
        _check_known(term, (str(_value(term.key, run, one)) for run, one in evaluated))
    elif term.key == "seed" and term.operator in ("=", "!="):
        for value in term.values:
            if _number(value, str(term)) not in plan.seeds:
                raise ConfigError(f"--where {term}: no run has the seed {value}{nearest(value, map(str, plan.seeds))}")
    elif term.key not in KEYS and all(_value(term.key, run, one) is _ABSENT for run, one in evaluated):
        _refuse(term, [_configuration(run, one) for run, one in evaluated])


def _refuse(term: Term, there: list[Any]) -> None:
    """Raise ConfigError with what there is at the part of a path that no run has."""
    done: list[str] = []
    for part in term.key.split("."):
        mappings = [one for one in there if isinstance(one, Mapping)]
        names = {name for one in mappings for name in one}
        if part not in names:
            above = ".".join(done)
            where = f"{above} has no {part!r}" if above else f"{part!r} is not there"
            what = nearest(part, names) if names else "; it is one value"
            raise ConfigError(f"--where {term}: {where}{what}")
        there, done = [one[part] for one in mappings if part in one], [*done, part]
