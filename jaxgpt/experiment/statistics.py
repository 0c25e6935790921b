"""Intervals and tests over seeds.

The unit of replication is the seed: tokens of one model are not independent draws of the training procedure. Variants
share initialisation seeds and data order, so differences are paired by seed. With so few seeds the t interval is used
and not a percentile bootstrap, whose 95% intervals cover 75% over 3 seeds and 84% over 5.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

CONFIDENCE = 0.95
"""Two-sided confidence of every interval shown, unadjusted for the number of intervals."""

LEVEL = 0.05
"""Level of a one-sided test, or of a family of them."""

EFFECT_SCALE = 5.0
"""Standard deviation of the effects, in standard deviations between seeds, that the always-valid test weighs by. It
costs power, never validity: 5 makes the interval narrowest for three to five seeds."""


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


# -------------------------------------------------------------------------------------------------------- always valid


def log_e_value(interval: Interval, bound: float) -> float:
    """Logarithm of the evidence against `true mean = bound`, however often it was looked at while seeds were added.

    The Bayes factor of the t test with an effect drawn from N(0, g), g = EFFECT_SCALE^2, against no effect:

        E = (1 + n g)^(-1/2) [(1 + t^2/v) / (1 + t^2 / (v (1 + n g)))]^((v + 1) / 2),   v = n - 1

    Whatever the spread between seeds, its expectation is 1 at the bound at every stopping time, so 1/E is a p-value
    that stays one under optional continuation (Lai 1976; Grunwald, de Heide & Koolen 2019, arXiv:1906.07801; Wang &
    Ramdas 2023, arXiv:2310.03722). Needs two seeds and a spread.
    """
    assert interval.error, "one seed, or equal values, have no t statistic"
    freedom, growth = interval.count - 1, 1 + interval.count * EFFECT_SCALE**2
    ratio = ((interval.mean - bound) / interval.error) ** 2 / freedom
    return -0.5 * math.log(growth) + (freedom + 1) / 2 * (math.log1p(ratio) - math.log1p(ratio / growth))


def always_valid_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The means whose E stays below 1 / (1 - confidence): with this probability it holds the true mean at every number
    of seeds at once, so seeds may be added until the answer is clear. Two and a half times as wide as the t interval
    at three seeds, twice at five. None as bounds where nothing is excluded (one or two seeds).

    Raises:
      ValueError: no values, or one that is not finite.
    """
    plain = t_interval(values, confidence)
    if not plain.error:
        return plain
    count, freedom = plain.count, plain.count - 1
    growth = 1 + count * EFFECT_SCALE**2
    bar = (math.sqrt(growth) / (1 - confidence)) ** (
        2 / count
    )  # E reaches its limit where (1 + x)/(1 + x/growth) = bar
    if bar >= growth:
        return dataclasses.replace(plain, low=None, high=None)
    half = math.sqrt(freedom * (bar - 1) / (1 - bar / growth)) * plain.error
    return dataclasses.replace(plain, low=plain.mean - half, high=plain.mean + half)


def always_valid_p_below(interval: Interval, bound: float) -> float:
    """As `p_below`, but valid however often seeds were added and looked at."""
    if not interval.error:
        return p_below(interval, bound)
    return 1.0 if interval.mean >= bound else min(1.0, math.exp(-log_e_value(interval, bound)))


@dataclasses.dataclass(frozen=True)
class Method:
    """How seeds become an interval and a test."""

    name: str
    interval: Callable[[Sequence[float]], Interval]
    p_below: Callable[[Interval, float], float]

    def p_above(self, interval: Interval, bound: float) -> float:
        """One-sided p-value of `true mean <= bound`, the mirror image of `p_below`."""
        return self.p_below(dataclasses.replace(interval, mean=-interval.mean), -bound)


T_TEST = Method("t test", t_interval, p_below)
"""For a number of seeds that was fixed before the run."""

ALWAYS_VALID = Method("always-valid t test", always_valid_interval, always_valid_p_below)
"""For seeds that were added after verdicts had been seen."""


# ------------------------------------------------------------------------------------------------- families and power


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
