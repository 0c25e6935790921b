"""What a claim says, as linear algebra on losses: contrasts, bounds on them, and their combination by `and` and `or`.

Every quantity is a linear combination of results, taken seed by seed. Losses are logarithms of perplexities, so a ratio
of perplexities is the exponential of a difference of losses. With L the training length of the variant named, and
contexts as its multiples:

    nll("rope", 4)           mean cross entropy of the fixed targets with context 4L, in nats; differences by `-`
    perplexity("rope", 4)    its exponential; ratios by `/`
    R("rope", 4)             perplexity with context 4L over perplexity with context L, on the same targets
    NO("rope", 4)            the same ratio for non-overlapping windows
    time_of("rope")          what a training step took, for ratios
    accuracy("rope", 1.5, 2) share of examples of lengths 1.5L and 2L that are right; differences by `-`

    at_least(R("rope", 4) / R("alibi", 4), 1.3)
    all_of(at_most(R("alibi", 4), 1.05), at_most(NO("alibi", 4), 1.02))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, Protocol

from jaxgpt.experiment.results import MissingResult, Results, log_timing
from jaxgpt.experiment.statistics import T_TEST, Interval, Method

FIXED_TARGET = "fixed_target_nll"
NON_OVERLAPPING = "non_overlapping_nll"
EXACT_MATCH = "task_exact_match"

Quantity = tuple[str, str, Fraction]
"""variant, metric, context as a multiple of L"""


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A linear combination of results, paired by seed.

    On the scale `ratio` its exponential is the number people read (and bounds are given as), and contrasts combine by
    `/`; on the scale `difference` the number is the combination itself, and contrasts combine by `-`.
    """

    text: str
    scale: Literal["ratio", "difference"]
    terms: tuple[tuple[float, Quantity], ...]

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, other: Contrast) -> Contrast:
        return self._less(other, "ratio", "/")

    def __sub__(self, other: Contrast) -> Contrast:
        return self._less(other, "difference", "-")

    def _less(self, other: Contrast, scale: str, sign: str) -> Contrast:
        if not self.scale == other.scale == scale:
            raise TypeError(f"{self.text} {sign} {other.text}: ratios combine by /, differences by -")
        right = f"({other.text})" if " - " in other.text or " / " in other.text else other.text
        terms = self.terms + tuple((-weight, quantity) for weight, quantity in other.terms)
        return Contrast(f"{self.text} {sign} {right}", self.scale, terms)

    def unit(self, results: Results) -> str:
        """Unit of the readable number: empty for ratios, that of the results for differences."""
        return "" if self.scale == "ratio" else results.unit(self.terms[0][1][1])

    def per_seed(self, results: Results) -> tuple[dict[int, float], tuple[str, ...]]:
        """The combination for every seed that has all its terms, on the linear (log) scale; notes on seeds left out.
        What was measured once, because its weights are given, serves all seeds of the others.

        Raises:
          MissingResult: a term was never measured, no seed has all terms, or a value is not finite.
        """
        found: list[tuple[float, Quantity, dict[int, float]]] = []
        for weight, (variant, metric, multiple) in self.terms:
            context = multiple * results.length(variant)
            if context.denominator != 1:
                shown = f"{_multiple(multiple)} of L = {results.length(variant)}"
                raise MissingResult(f"{variant}: {metric} at context {shown} is no whole length")
            values = results.values(variant, metric, int(context))
            for seed, value in values.items():
                if not math.isfinite(value):
                    raise MissingResult(f"{variant} seed {seed}: {metric} at context {int(context)} is {value}")
            found.append((weight, (variant, metric, multiple), values))
        found = _for_every_seed(found, results)
        every = sorted(set().union(*(values for _, _, values in found)))
        common = [seed for seed in every if all(seed in values for _, _, values in found)]
        if not common:
            raise MissingResult(f"{self.text}: no seed has all its results")
        left_out = {seed: variant for _, (variant, _, _), values in found for seed in every if seed not in values}
        notes = tuple(f"seed {seed} left out: {variant} has no result" for seed, variant in sorted(left_out.items()))
        return {seed: math.fsum(w * values[seed] for w, _, values in found) for seed in common}, notes


def _for_every_seed(
    found: list[tuple[float, Quantity, dict[int, float]]], results: Results
) -> list[tuple[float, Quantity, dict[int, float]]]:
    """Terms with the values of given weights repeated for the seeds of all other terms, if there are others."""
    seeds = set().union(*(values for _, (variant, _, _), values in found if variant not in results.given))
    if not seeds:
        return found
    return [
        (weight, quantity, dict.fromkeys(seeds, min(values.values())) if quantity[0] in results.given else values)
        for weight, quantity, values in found
    ]


def _multiple(multiple: Fraction) -> str:
    """4 -> `4L`, 1 -> `L`, 1/4 -> `L/4`."""
    top = "L" if multiple.numerator == 1 else f"{multiple.numerator}L"
    return top if multiple.denominator == 1 else f"{top}/{multiple.denominator}"


def _measured(
    text: str, scale: Literal["ratio", "difference"], variant: str, metric: str, multiple: float, protocol: str = ""
) -> Contrast:
    context = Fraction(multiple).limit_denominator(4096)
    return Contrast(f"{text}_{variant}({_multiple(context)}{protocol})", scale, ((1.0, (variant, metric, context)),))


def _protocol(metric: str) -> str:
    """What a loss is called after its context: nothing for fixed targets, which are what is meant unless said."""
    return "" if metric == FIXED_TARGET else f", {metric.removesuffix('_nll').replace('_', ' ')}"


def nll(variant: str, multiple: float, metric: str = FIXED_TARGET) -> Contrast:
    """A loss as it is, for differences in its own unit. Any metric whose values are numbers of one scale will do."""
    if not metric.endswith("_nll"):
        return _measured(metric, "difference", variant, metric, multiple)
    return _measured("nll", "difference", variant, metric, multiple, _protocol(metric))


def accuracy(variant: str, *multiples: float, metric: str = EXACT_MATCH) -> Contrast:
    """A share of right answers at `multiples` of L, averaged over them, for differences."""
    contexts = [Fraction(multiple).limit_denominator(4096) for multiple in multiples]
    terms = tuple((1 / len(contexts), (variant, metric, context)) for context in contexts)
    name = "accuracy" if metric == EXACT_MATCH else metric
    return Contrast(f"{name}_{variant}({', '.join(map(_multiple, contexts))})", "difference", terms)


def perplexity(variant: str, multiple: float, metric: str = FIXED_TARGET) -> Contrast:
    """exp of a loss in nats per token, for ratios between variants."""
    return _measured("PPL", "ratio", variant, metric, multiple, _protocol(metric))


def R(variant: str, multiple: float) -> Contrast:  # noqa: N802 - the letter the rule is written with
    """Perplexity of the fixed targets with context `multiple` * L over that with context L."""
    return _over_home("R", variant, multiple, FIXED_TARGET)


def NO(variant: str, multiple: float) -> Contrast:  # noqa: N802 - the letters the rule is written with
    """Perplexity of non-overlapping windows of `multiple` * L tokens over that of windows of L."""
    return _over_home("NO", variant, multiple, NON_OVERLAPPING)


def time_of(variant: str, metric: str = "step_time") -> Contrast:
    """What a clock measured of a variant, for ratios. No two runs measure the same."""
    return Contrast(f"{metric}_{variant}", "ratio", ((1.0, (variant, log_timing(metric), Fraction(0))),))


def _over_home(name: str, variant: str, multiple: float, metric: str) -> Contrast:
    far = _measured(name, "ratio", variant, metric, multiple)
    home = _measured(name, "ratio", variant, metric, 1)
    return Contrast(far.text, "ratio", (far / home).terms)


# ------------------------------------------------------------------------------------------------------ rules and tests


@dataclasses.dataclass(frozen=True)
class Part:
    """One bound held against the data, or a contrast merely shown (`bound` and `side` None).

    `text` names the contrast. `interval` is in readable numbers (ratios, or differences in `unit`), `bound` likewise;
    `per_seed` is on the linear (log) scale. `tests` is how many parts share the level of the test.
    """

    text: str
    scale: Literal["ratio", "difference"]
    unit: str
    bound: float | None
    side: Literal["<=", ">="] | None
    interval: Interval
    p_support: float
    p_contradict: float
    per_seed: Mapping[int, float]
    notes: tuple[str, ...] = ()
    tests: int = 1

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.text} = {show_interval(self.interval)}{unit}"


def show_interval(interval: Interval) -> str:
    """`1.86 [1.80, 1.92]`, or the mean alone where one seed cannot tell."""
    mean = f"{interval.mean:.4g}"
    return mean if interval.low is None else f"{mean} [{interval.low:.4g}, {interval.high:.4g}]"


@dataclasses.dataclass(frozen=True)
class Assessment:
    """A rule held against the data: p-values for the claim and against it, and the parts they come from.

    `deciding` is the part that stands for the whole: the weakest of an `and`, the strongest of an `or`.
    """

    p_support: float
    p_contradict: float
    parts: tuple[Part, ...]
    deciding: Part

    @property
    def seeds(self) -> int:
        """Number of seeds behind the part that has the fewest."""
        return min(part.interval.count for part in self.parts)


@dataclasses.dataclass(frozen=True)
class _Single:
    contrast: Contrast

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        return (self.contrast,)


@dataclasses.dataclass(frozen=True)
class Bound(_Single):
    """`contrast <= bound` or `contrast >= bound`: supported where the data exclude the far side, contradicted where
    they exclude the near side, both by a one-sided t test over seeds."""

    side: Literal["<=", ">="]
    bound: float

    def __post_init__(self):
        if self.contrast.scale == "ratio" and self.bound <= 0:
            raise ValueError(f"{self}: the bound of a ratio must be positive")

    def __str__(self) -> str:
        unit = " nats" if self.contrast.scale == "difference" and self.contrast.text.startswith("nll") else ""
        return f"{self.contrast.text} {self.side} {self.bound:g}{unit}"

    def assess(self, results: Results, method: Method = T_TEST) -> Assessment:
        """Raises MissingResult where the data lack what the contrast needs."""
        linear = math.log(self.bound) if self.contrast.scale == "ratio" else self.bound
        values, notes = self.contrast.per_seed(results)
        interval = method.interval(list(values.values()))
        below, above = method.p_below(interval, linear), method.p_above(interval, linear)
        support, contradict = (below, above) if self.side == "<=" else (above, below)
        part = _part(self.contrast, results, interval, values, notes)
        part = dataclasses.replace(part, bound=self.bound, side=self.side, p_support=support, p_contradict=contradict)
        return Assessment(support, contradict, (part,), part)


@dataclasses.dataclass(frozen=True)
class Shown(_Single):
    """A contrast to be shown with its interval and never judged."""

    def __str__(self) -> str:
        return f"{self.contrast.text}, shown and not judged"

    def assess(self, results: Results, method: Method = T_TEST) -> Assessment:
        """Raises MissingResult where the data lack what the contrast needs."""
        values, notes = self.contrast.per_seed(results)
        part = _part(self.contrast, results, method.interval(list(values.values())), values, notes)
        return Assessment(1.0, 1.0, (part,), part)


@dataclasses.dataclass(frozen=True)
class _Combined:
    parts: tuple[Test, ...]

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        return tuple(contrast for part in self.parts for contrast in part.contrasts)


@dataclasses.dataclass(frozen=True)
class AllOf(_Combined):
    """Every part must hold. With k parts each is tested at 1/k of the level.

    The claim is supported where every part is, and contradicted where some part is: one false part makes it false.
    """

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)

    def assess(self, results: Results, method: Method = T_TEST) -> Assessment:
        """Raises MissingResult where the data lack what a part needs."""
        found = [part.assess(results, method) for part in self.parts]
        weakest = max(found, key=lambda one: (one.p_support, -one.p_contradict))
        return Assessment(
            _share(found, max(one.p_support for one in found)),
            _share(found, min(one.p_contradict for one in found)),
            _sharing(found),
            weakest.deciding,
        )


@dataclasses.dataclass(frozen=True)
class AnyOf(_Combined):
    """One part must hold. With k parts each is tested at 1/k of the level.

    The claim is supported where some part is, and contradicted only where every part is.
    """

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, AllOf) else str(part) for part in self.parts)

    def assess(self, results: Results, method: Method = T_TEST) -> Assessment:
        """Raises MissingResult where the data lack what a part needs."""
        found = [part.assess(results, method) for part in self.parts]
        strongest = min(found, key=lambda one: (one.p_support, -one.p_contradict))
        return Assessment(
            _share(found, min(one.p_support for one in found)),
            _share(found, max(one.p_contradict for one in found)),
            _sharing(found),
            strongest.deciding,
        )


class Test(Protocol):
    """A rule: its words by `str`, what it is about, and what the data say to it."""

    @property
    def contrasts(self) -> tuple[Contrast, ...]: ...

    def assess(self, results: Results, method: Method = T_TEST) -> Assessment:
        """Raises MissingResult where the data lack what the rule needs."""
        ...


def _share(found: list[Assessment], p_value: float) -> float:
    """Testing k parts at 1/k of the level is the same as testing k times the p-value at the level."""
    return min(1.0, len(found) * p_value)


def _sharing(found: list[Assessment]) -> tuple[Part, ...]:
    """All parts, each told how many share the level with it."""
    return tuple(dataclasses.replace(part, tests=part.tests * len(found)) for one in found for part in one.parts)


def _part(
    contrast: Contrast, results: Results, linear: Interval, values: Mapping[int, float], notes: tuple[str, ...]
) -> Part:
    readable = linear.exp() if contrast.scale == "ratio" else linear
    return Part(
        text=contrast.text,
        scale=contrast.scale,
        unit=contrast.unit(results),
        bound=None,
        side=None,
        interval=readable,
        p_support=1.0,
        p_contradict=1.0,
        per_seed=values,
        notes=notes,
    )


def at_most(contrast: Contrast, bound: float) -> Bound:
    """The claim that a contrast is at most `bound`: a ratio for ratios, otherwise a number in the results' unit."""
    return Bound(contrast, "<=", bound)


def at_least(contrast: Contrast, bound: float) -> Bound:
    """The claim that a contrast is at least `bound`: a ratio for ratios, otherwise a number in the results' unit."""
    return Bound(contrast, ">=", bound)


def all_of(*parts: Test) -> AllOf:
    """The claim that every part holds."""
    return AllOf(_judged(parts))


def any_of(*parts: Test) -> AnyOf:
    """The claim that at least one part holds."""
    return AnyOf(_judged(parts))


def show(contrast: Contrast) -> Shown:
    """A contrast shown with its interval, never judged."""
    return Shown(contrast)


def _judged(parts: tuple[Test, ...]) -> tuple[Test, ...]:
    if len(parts) < 2:
        raise ValueError("a combined rule needs at least two parts")
    for part in parts:
        if isinstance(part, Shown):
            raise ValueError(f"{part}: cannot be part of a rule")
    return parts
