"""Intervals and tests over seeds.

The unit of replication is the seed: tokens of one model are not independent draws of the training procedure. Variants
share initialisation seeds and data order, so differences are paired by seed. With so few seeds the t interval is used
and not a percentile bootstrap, whose 95% intervals cover 75% over 3 seeds and 84% over 5.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

CONFIDENCE = 0.95
"""Two-sided confidence of every interval shown, unadjusted for the number of intervals."""

LEVEL = 0.05
"""Level of a one-sided test, or of a family of them."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds with its two-sided t interval; `low` and `high` are None where one seed cannot tell.

    `error` is the standard error of the mean (0 for equal values, None for one seed), `count` the number of seeds.
    """

    mean: float
    low: float | None
    high: float | None
    error: float | None
    count: int

    def exp(self) -> Interval:
        """The same interval of log ratios as ratios: geometric mean and bounds. The error stays on the log scale."""

        def ratio(value: float | None) -> float | None:
            # A diverged model's loss can exceed what exp can hold.
            return None if value is None else math.exp(min(value, 700.0))

        return Interval(math.exp(min(self.mean, 700.0)), ratio(self.low), ratio(self.high), self.error, self.count)


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of a mean, mean +- t_(n-1) s / sqrt(n).

    One value has no interval. Equal values have the point as their interval: the spread between seeds is zero as far as
    these seeds show, which happens where a quantity is exact (a scaling by 1, a baseline that no seed touches).

    Raises:
      ValueError: no values, or one that is not finite.
    """
    x = np.asarray(values, np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"an interval needs finite values, got {list(values)}")
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, None, None, None, 1)
    if np.ptp(x) == 0:
        return Interval(float(x[0]), float(x[0]), float(x[0]), 0.0, x.size)
    error = float(x.std(ddof=1) / math.sqrt(x.size))
    half = float(scipy.special.stdtrit(x.size - 1, 0.5 + confidence / 2)) * error
    return Interval(mean, mean - half, mean + half, error, x.size)


def p_below(interval: Interval, bound: float) -> float:
    """One-sided p-value of `true mean >= bound`; small where the data say the mean lies below the bound.

    One seed says nothing (1). Without any spread the mean is taken as known: 0 strictly below the bound, else 1.
    """
    if interval.error is None:
        return 1.0
    if interval.error == 0:
        return 0.0 if interval.mean < bound else 1.0
    return float(scipy.special.stdtr(interval.count - 1, (interval.mean - bound) / interval.error))


def p_above(interval: Interval, bound: float) -> float:
    """One-sided p-value of `true mean <= bound`, the mirror image of `p_below`."""
    mirrored = dataclasses.replace(interval, mean=-interval.mean)
    return p_below(mirrored, -bound)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment of a named family: reject what is at most the level, and the chance of any false
    rejection in the family stays below the level however the tests depend on each other (Holm 1979).

    The i-th smallest of m p-values is multiplied by m - i + 1, kept monotone and at most 1.
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def resolvable(interval: Interval, level: float = LEVEL, power: float = 0.8) -> float | None:
    """The distance from a bound that this many seeds of this spread would resolve with the given power, in the unit of
    the values: the effect at which a one-sided t test at `level` rejects with probability `power` (noncentral t).
    None where the spread is unknown; 0 where there is none.
    """
    if interval.error is None:
        return None
    if interval.error == 0:
        return 0.0
    return _noncentrality(interval.count - 1, level, power) * interval.error


@functools.cache
def _noncentrality(freedom: int, level: float, power: float) -> float:
    """The true mean, in standard errors, that a one-sided t test at `level` finds with probability `power`."""
    critical = float(scipy.special.stdtrit(freedom, 1 - level))

    def excess(effect: float) -> float:
        return float(scipy.stats.nct.sf(critical, freedom, effect)) - power

    return float(scipy.optimize.brentq(excess, 0.0, 20 * critical))  # type: ignore[arg-type]
