"""Claims with acceptance rules fixed before the run, and the verdict that the results give each of them.

A claim is *supported* if the data exclude the far side of its bound and *contradicted* if they exclude its near side;
otherwise it is *not resolved*, with the reason: models that do not use their context (underfit), too few seeds, a
result that is missing, or an interval that crosses the bound.

The tests are one-sided t tests over seeds. The headline claims form one family: their p-values are adjusted by Holm,
once for `supported` and once for `contradicted`, so that the chance of any false `supported` among them is at most the
level, and likewise of any false `contradicted`. The other claims are tested at the plain level. Intervals are
two-sided, 95%, unadjusted.

Seeds may be added after verdicts were seen, but not judged by the same test: whoever stops when the answer pleases
finds one sooner or later. From the second look on the always-valid test and interval take their place
(`statistics.ALWAYS_VALID`), whose errors are bounded over all looks together.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxgpt.experiment import statistics
from jaxgpt.experiment.contrasts import (
    FIXED_TARGET,
    NO,
    NON_OVERLAPPING,
    Assessment,
    Bound,
    Contrast,
    Part,
    R,
    Shown,
    Test,
    accuracy,
    all_of,
    any_of,
    at_least,
    at_most,
    nll,
    perplexity,
    show,
    show_interval,
    time_of,
)
from jaxgpt.experiment.results import MissingResult, Results
from jaxgpt.experiment.statistics import LEVEL, T_TEST, Interval, Method
from jaxgpt.files import write_atomic

__all__ = [
    "FIXED_TARGET",
    "NO",
    "NON_OVERLAPPING",
    "Bound",
    "Claim",
    "Contrast",
    "Gate",
    "R",
    "Verdict",
    "accuracy",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "best_in_range",
    "context_gate",
    "evaluate_claims",
    "nll",
    "perplexity",
    "show",
    "time_of",
    "write_verdicts",
]

MINIMUM_SEEDS = 3
"""Fewer seeds than this judge nothing."""

GATE_NATS = 0.02
"""By how much a quarter of the context must cost, in nats per token, before a model counts as using its context."""

Outcome = Literal["supported", "contradicted", "not resolved", "shown"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement and the rule that judges it.

    Attributes:
      name: short and unique, such as `ALiBi stays flat`.
      statement: one sentence for readers.
      test: the rule, from `at_most`, `at_least`, `all_of`, `any_of`; or `show(...)` for what is shown and never judged.
      headline: whether the claim belongs to the family whose error rate Holm's adjustment bounds.
      gate: variants of which the claim says something good. They must use their context, as must the best arm in range,
        before the claim is judged. A claim that an arm fails names none: not using the context is how it fails. None
        is no gate, for experiments that measure no fixed targets.
      source: where the claim comes from and how strong its support is.
      rule: the rule as text; the test's own words if not given.
    """

    name: str
    statement: str
    test: Test
    headline: bool = False
    gate: tuple[str, ...] | None = ()
    source: str = ""
    rule: str = ""

    def __post_init__(self):
        if isinstance(self.gate, str):
            raise TypeError(f"claim {self.name!r}: gate is a tuple of variants, not the text {self.gate!r}")
        if not self.judged and self.headline:
            raise ValueError(f"claim {self.name!r}: what is never judged cannot be a headline")
        if not self.rule:
            object.__setattr__(self, "rule", str(self.test))

    @property
    def judged(self) -> bool:
        """False for what is only shown."""
        return not isinstance(self.test, Shown)


@dataclasses.dataclass(frozen=True)
class Gate:
    """Whether a variant uses its context: cross entropy at context L/4 less that at L, in nats per token.

    `passed` is None where it cannot be told: not measured, or one seed.
    """

    variant: str
    drop: Interval | None
    passed: bool | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the results say about a claim.

    `estimate`, `low` and `high` (ratios, or differences in `unit`) are those of the part that decides: the weakest of
    an `and`, the strongest of an `or`; `parts` has all. `p_value` is that of the verdict's side, after Holm for
    headlines.
    `gate` is `passed`, `failed (VARIANTS)`, `unknown (VARIANTS)`, or `none` for what is only shown or asks for no gate.
    """

    claim: str
    rule: str
    verdict: Outcome
    reason: str
    estimate: float | None
    low: float | None
    high: float | None
    seeds: int
    gate: str
    statement: str = ""
    headline: bool = False
    source: str = ""
    unit: str = ""
    p_value: float | None = None
    parts: tuple[Part, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The nine public keys of `verdicts.json`."""
        names = ("claim", "rule", "verdict", "reason", "estimate", "low", "high", "seeds", "gate")
        return {name: getattr(self, name) for name in names}


def write_verdicts(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the judged claims as a JSON list of objects, in the order given. What is only shown is no verdict."""
    judged = [verdict.to_json() for verdict in verdicts if verdict.verdict != "shown"]
    write_atomic(path, json.dumps(judged, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


# ------------------------------------------------------------------------------------------------------- context gate


def context_gate(results: Results, variant: str, method: Method = T_TEST) -> Gate:
    """Whether a variant uses its context: on the fixed-target curve the cross entropy at context L lies at least 0.02
    nats below that at L/4, with an interval above zero."""
    try:
        values, _ = (nll(variant, 0.25) - nll(variant, 1)).per_seed(results)
    except MissingResult as error:
        return Gate(variant, None, None, str(error))
    drop = method.interval(list(values.values()))
    if drop.low is None and variant in results.given:
        drop = dataclasses.replace(drop, low=drop.mean, high=drop.mean)  # weights that no seed decides
    if drop.low is None:
        return Gate(variant, drop, None, "one seed cannot tell")
    shown = f"nll(L/4) - nll(L) = {show_interval(drop)} nats"
    if drop.mean >= GATE_NATS and drop.low > 0:
        return Gate(variant, drop, True, shown)
    missed = f"below {GATE_NATS:g}" if drop.mean < GATE_NATS else "its interval reaches zero"
    return Gate(variant, drop, False, f"{shown}, {missed}")


def best_in_range(results: Results) -> str:
    """The variant with the lowest mean cross entropy on the fixed targets at context L.

    Raises:
      MissingResult: no variant was measured there.
    """
    home: dict[str, float] = {}
    for variant in results.variants:
        length = results.length(variant)
        if results.has(variant, FIXED_TARGET, length):
            values = results.values(variant, FIXED_TARGET, length)
            home[variant] = statistics.t_interval(list(values.values())).mean if _finite(values.values()) else math.inf
    if not home:
        raise MissingResult(f"no variant has {FIXED_TARGET} at context L = {results.train_length}")
    return min(home, key=lambda name: home[name])


def _finite(values: Any) -> bool:
    return all(map(math.isfinite, values))


def _gate(arms: Sequence[str], results: Results, method: Method) -> tuple[str, str]:
    """(state, reason): the arms that fail, else those that cannot be told, else `passed`."""
    gates = [context_gate(results, arm, method) for arm in dict.fromkeys([best_in_range(results), *arms])]
    for passed, state in ((False, "failed"), (None, "unknown")):
        found = [gate for gate in gates if gate.passed is passed]
        if found:
            names = ", ".join(gate.variant for gate in found)
            return f"{state} ({names})", "; ".join(f"{gate.variant}: {gate.reason}" for gate in found)
    return "passed", ""


# ------------------------------------------------------------------------------------------------------------ verdicts


@dataclasses.dataclass(frozen=True)
class _Case:
    """A claim with all that is needed to judge it, but for the adjustment over its family."""

    claim: Claim
    found: Assessment | None
    gate: str
    obstacle: str  # why it cannot be judged, whatever the tests say
    method: Method


def evaluate_claims(
    claims: Sequence[Claim],
    results: Results,
    *,
    level: float = LEVEL,
    minimum_seeds: int = MINIMUM_SEEDS,
    methods: Mapping[str, Method] | None = None,
) -> list[Verdict]:
    """The verdict on every claim, in the order given. What is missing makes a claim `not resolved`, never an error.

    A headline claim that cannot be judged still counts in the size of its family: the family was named before the run.

    Args:
      claims: statements with their rules; names must differ.
      results: measurements of all seeds.
      level: of a one-sided test, and of the family of headline claims.
      minimum_seeds: fewer judge nothing; at least 2.
      methods: interval and test over seeds by claim; the t test for claims that are not named.

    Raises:
      ValueError: two claims of the same name, or `minimum_seeds` below 2.
    """
    names = [claim.name for claim in claims]
    if len(set(names)) < len(names):
        raise ValueError(f"two claims have the same name: {sorted({name for name in names if names.count(name) > 1})}")
    if minimum_seeds < 2:
        raise ValueError("a verdict never comes from one seed")
    cases = [_case(claim, results, minimum_seeds, (methods or {}).get(claim.name, T_TEST)) for claim in claims]
    support = _adjust(cases, "p_support")
    contradict = _adjust(cases, "p_contradict")
    family = sum(claim.headline for claim in claims)
    return [_verdict(case, support[case.claim.name], contradict[case.claim.name], level, family) for case in cases]


def _case(claim: Claim, results: Results, minimum_seeds: int, method: Method) -> _Case:
    try:
        found = claim.test.assess(results, method)
        gate, why = _gate(claim.gate, results, method) if claim.judged and claim.gate is not None else ("none", "")
    except MissingResult as error:
        return _Case(claim, None, "unknown", str(error), method)
    obstacle = ""
    fixed = [
        one.text for one in claim.test.contrasts if all(variant in results.given for _, (variant, _, _) in one.terms)
    ]
    if fixed:
        obstacle = f"{fixed[0]}: all weights are given, and no seeds vary; the interval over documents tells how sure"
    elif found.seeds < minimum_seeds:
        obstacle = f"too few seeds: {found.seeds} of at least {minimum_seeds}"
    elif gate.startswith("failed"):
        obstacle = f"underfit: {why}"
    elif gate.startswith("unknown"):
        obstacle = f"whether the models use their context is unknown: {why}"
    return _Case(claim, found, gate, obstacle, method)


def _adjust(cases: Sequence[_Case], side: str) -> dict[str, float]:
    """name -> p-value of one side; 1 for what cannot be judged; adjusted by Holm among the headline claims."""
    plain = {
        case.claim.name: 1.0 if case.found is None or case.obstacle else getattr(case.found, side) for case in cases
    }
    return plain | statistics.holm({case.claim.name: plain[case.claim.name] for case in cases if case.claim.headline})


def _verdict(case: _Case, support: float, contradict: float, level: float, family: int) -> Verdict:
    claim, found = case.claim, case.found
    outcome: Outcome = "not resolved"
    p_value = None if found is None or case.obstacle else min(support, contradict)
    if not claim.judged:
        outcome, p_value = "shown", None
    elif p_value is not None and p_value <= level:
        outcome = "supported" if support <= level else "contradicted"
    interval = found.deciding.interval if found else Interval(math.nan, None, None, None, 0)
    return Verdict(
        claim=claim.name,
        rule=claim.rule,
        verdict=outcome,
        reason=_reason(case, outcome, p_value, family, level),
        estimate=interval.mean if found else None,
        low=interval.low,
        high=interval.high,
        seeds=found.seeds if found else 0,
        gate=case.gate,
        statement=claim.statement,
        headline=claim.headline,
        source=claim.source,
        unit=found.deciding.unit if found else "",
        p_value=p_value,
        parts=found.parts if found else (),
    )


def _reason(case: _Case, outcome: Outcome, p_value: float | None, family: int, level: float) -> str:
    if case.found is None or (case.obstacle and outcome != "shown"):
        return case.obstacle
    pieces = [str(part) for part in case.found.parts]
    if outcome == "not resolved":
        # The first of a family to be resolved is tested at this share of the level, each part at its share of that.
        share = level / family if case.claim.headline else level
        pieces = [_unresolved(part, share / part.tests, case.method) for part in case.found.parts]
    if p_value is not None:
        adjusted = f" after Holm over {family} headline claims" if case.claim.headline and family > 1 else ""
        pieces.append(f"p {_p(p_value)}{adjusted}")
    pieces += dict.fromkeys(note for part in case.found.parts for note in part.notes)
    return "; ".join(pieces)


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _unresolved(part: Part, level: float, method: Method) -> str:
    """What keeps a part from being resolved, and what so many seeds of such spread resolve by a t test."""
    interval, bound = part.interval, part.bound
    assert bound is not None
    if interval.low is None or interval.high is None:
        return f"{part}: {interval.count} seeds exclude nothing"
    if interval.low <= bound <= interval.high:
        return f"{part}: the interval crosses the bound {bound:g}{_power(part, level) if method is T_TEST else ''}"
    near = (interval.mean <= bound) == (part.side == "<=")
    return f"{part}: the interval lies on the {'near' if near else 'far'} side of the bound {bound:g}"


def _power(part: Part, level: float) -> str:
    """The effect that a t test over so many seeds finds with 80% power, in the words of the scale."""
    distance = statistics.resolvable(part.interval, level)
    if not distance:
        return ""
    seeds = f"; {part.interval.count} seeds resolve"
    if part.scale == "ratio":
        return f"{seeds} a factor of {math.exp(min(distance, 700.0)):.3g} from the bound (power 80%)"
    unit = part.unit.partition("/")[0]  # nats/token: a difference of nats
    return f"{seeds} a difference of {distance:.2g} {unit} from the bound (power 80%)"
