"""Numbers on their way to a picture or a table: means with intervals along contexts, training curves made short."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from jaxgpt.experiment import statistics
from jaxgpt.experiment.report.model import Curve, Report
from jaxgpt.experiment.results import MissingResult, Results
from jaxgpt.experiment.statistics import Interval

POSITION = "position_nll"
PROTOCOLS = {"fixed_target": "Fixed targets", "non_overlapping": "Non-overlapping windows", "sliding": "Sliding window"}


@dataclasses.dataclass(frozen=True)
class Point:
    """One place of a curve: the mean over seeds with its t interval."""

    context: int
    interval: Interval


def points(results: Results, variant: str, metric: str) -> list[Point]:
    """A variant's curve along context, in the metric's unit; values that are not finite are left out."""
    found = []
    for context in results.contexts(metric, variant):
        values = [value for value in results.values(variant, metric, context).values() if math.isfinite(value)]
        if values:
            found.append(Point(context, statistics.t_interval(values)))
    return found


def ratios(results: Results, variant: str, metric: str) -> list[Point]:
    """A variant's perplexity over its own at context L, paired by seed: the geometric mean with its interval."""
    try:
        home = results.values(variant, metric, results.length(variant))
    except MissingResult:
        return []
    found = []
    for context in results.contexts(metric, variant):
        values = results.values(variant, metric, context)
        logs = [values[seed] - home[seed] for seed in values if seed in home]
        logs = [value for value in logs if math.isfinite(value)]
        if logs:
            found.append(Point(context, statistics.t_interval(logs).exp()))
    return found


def exponentials(curve: Sequence[Point]) -> list[Point]:
    """Losses in nats per token as perplexities."""
    return [Point(point.context, point.interval.exp()) for point in curve]


def in_lengths(context: int, length: int) -> str:
    """A context as a multiple of the training length: `L/4`, `L`, `4L`; empty for awkward ones."""
    share = Fraction(context, length)
    if share.denominator > 16 or (share.denominator > 1 and share > 1):
        return ""
    top = "L" if share.numerator == 1 else f"{share.numerator}L"
    return top if share.denominator == 1 else f"{top}/{share.denominator}"


def thinned(curve: Curve, most: int = 200) -> tuple[list[float], list[float]]:
    """(tokens, loss) of a training curve, averaged in at most `most` equal stretches, which also smooths it."""
    loss = np.asarray(curve.loss, np.float64)
    keep = np.isfinite(loss)
    tokens, loss = np.asarray(curve.tokens, np.float64)[keep], loss[keep]
    size = max(1, math.ceil(loss.size / most))
    starts = range(0, loss.size, size)
    return [float(tokens[i : i + size].mean()) for i in starts], [float(loss[i : i + size].mean()) for i in starts]


def validation(report: Report, variant: str) -> list[tuple[int, Interval]]:
    """(tokens, mean over seeds) of a variant's validation losses."""
    found: dict[int, list[float]] = {}
    for curve in report.curves:
        if curve.variant == variant:
            for _, tokens, loss in curve.validation:
                if math.isfinite(loss):
                    found.setdefault(tokens, []).append(loss)
    return [(tokens, statistics.t_interval(losses)) for tokens, losses in sorted(found.items())]


def curve_variants(report: Report) -> list[str]:
    """Variants that were trained, in the report's order."""
    trained = dict.fromkeys(curve.variant for curve in report.curves)
    return list(dict.fromkeys([name for name in report.results.variants if name in trained] + list(trained)))


_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (*range(10, 100, 5),))


def log_ticks(low: float, high: float) -> list[float]:
    """Five to nine round numbers, where there are so many, for a logarithmic axis from `low` to `high`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in _STEPS:
        ticks = sorted({float(f"{s / steps[0] * 10.0**power:.6g}") for power in range(first, last) for s in steps})
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 5:
            return ticks
    digits = max(0, 1 - math.floor(math.log10(max(high - low, 1e-9))))
    ticks = {round(float(tick), digits) for tick in np.linspace(low, high, 6)}
    return sorted(tick for tick in ticks if low <= tick <= high)


def limits(curves: Sequence[Sequence[Point]]) -> tuple[float, float]:
    """The range of the means, widened by intervals as far as these stay within it by half again.

    An interval over two or three seeds may be far wider than anything worth drawing, and perplexities of a model that
    diverged would flatten all others: both leave the axis.
    """
    means = [point.interval.mean for curve in curves for point in curve]
    low = min(means)
    high = min(max(means), low * 1e4) if low > 0 else max(means)
    ends = [end for curve in curves for p in curve for end in (p.interval.low, p.interval.high) if end is not None]
    margin = 1.5 if low > 0 else 1.0
    return max(min([low, *ends]), low / margin), min(max([high, *ends]), high * margin)
