from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from jaxgpt.experiment.statistics import (
    ALWAYS_VALID,
    T_TEST,
    Interval,
    always_valid_interval,
    always_valid_p_below,
    holm,
    log_e_value,
    p_below,
    resolvable,
    t_interval,
)


def test_t_interval_is_that_of_scipy():
    x = [0.3, 0.5, 0.1, 0.45]
    interval = t_interval(x)
    low, high = scipy.stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert interval.mean == pytest.approx(np.mean(x))
    assert interval.count == 4


def test_one_sided_p_values_are_those_of_scipy():
    x = [0.3, 0.5, 0.1]
    interval = t_interval(x)
    assert p_below(interval, 0.4) == pytest.approx(scipy.stats.ttest_1samp(x, 0.4, alternative="less").pvalue)
    assert T_TEST.p_above(interval, 0.1) == pytest.approx(scipy.stats.ttest_1samp(x, 0.1, alternative="greater").pvalue)


def test_one_value_has_no_interval_and_says_nothing():
    interval = t_interval([0.7])
    assert interval == Interval(0.7, None, None, None, 1)
    assert p_below(interval, 1e9) == T_TEST.p_above(interval, -1e9) == 1.0
    assert resolvable(interval) is None


def test_equal_values_are_known_exactly():
    interval = t_interval([0.1, 0.1, 0.1])
    assert (interval.mean, interval.low, interval.high) == (0.1, 0.1, 0.1)
    assert p_below(interval, 0.2) == 0.0
    assert T_TEST.p_above(interval, 0.2) == 1.0
    assert p_below(interval, 0.1) == T_TEST.p_above(interval, 0.1) == 1.0
    assert resolvable(interval) == 0.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_must_be_finite(values: list[float]):
    with pytest.raises(ValueError, match="finite"):
        t_interval(values)


def test_exp_gives_ratios_and_never_overflows():
    ratio = t_interval([0.1, 0.2, 0.3]).exp()
    assert ratio.mean == pytest.approx(math.exp(0.2))
    assert ratio.low is not None
    assert ratio.low < ratio.mean
    assert math.isfinite(t_interval([1e4]).exp().mean)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_covers_the_truth_in_95_of_100_experiments(seeds: int):
    """2000 experiments: the standard error of the share is 0.5%."""
    draws = np.random.default_rng(0).normal(0.3, 0.05, (2000, seeds))
    covered = [interval.low <= 0.3 <= interval.high for interval in map(t_interval, draws)]  # type: ignore[operator]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_test_at_its_bound_is_wrong_in_5_of_100_experiments(seeds: int):
    draws = np.random.default_rng(1).normal(0.3, 0.05, (2000, seeds))
    assert np.mean([p_below(t_interval(x), 0.3) <= 0.05 for x in draws]) == pytest.approx(0.05, abs=0.015)
    assert np.mean([T_TEST.p_above(t_interval(x), 0.3) <= 0.05 for x in draws]) == pytest.approx(0.05, abs=0.015)


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_holm_bounds_the_chance_of_any_false_rejection():
    """Four true nulls, correlated, beside one that is false: any of the four is rejected in at most 5% of families."""
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(2000):
        shared = generator.normal()
        z = 0.7 * shared + math.sqrt(1 - 0.49) * generator.normal(size=4)
        p = {str(i): float(scipy.stats.norm.sf(value)) for i, value in enumerate(z)} | {"false": 1e-6}
        adjusted = holm(p)
        assert adjusted["false"] <= 0.05
        wrong += any(adjusted[str(i)] <= 0.05 for i in range(4))
    assert wrong / 2000 <= 0.05 + 0.01


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_resolvable_distance_is_resolved_as_often_as_promised(seeds: int):
    spread = 0.05
    distance = resolvable(Interval(0.0, 0.0, 0.0, spread / math.sqrt(seeds), seeds))
    assert distance is not None
    draws = np.random.default_rng(3).normal(distance, spread, (2000, seeds))
    assert np.mean([T_TEST.p_above(t_interval(x), 0.0) <= 0.05 for x in draws]) == pytest.approx(0.8, abs=0.03)


# -------------------------------------------------------------------------------------------------------- always valid


def test_the_evidence_by_hand():
    """t = sqrt(3) * 0.2 / 0.1 at n = 3: E = 76^(-1/2) [(1 + 6) / (1 + 6/76)]^(3/2)."""
    interval = t_interval([0.1, 0.2, 0.3])
    assert math.exp(log_e_value(interval, 0.0)) == pytest.approx(76**-0.5 * (7 / (1 + 6 / 76)) ** 1.5)
    assert log_e_value(interval, 0.2) == pytest.approx(-0.5 * math.log(76)), "at the mean: evidence for the bound"


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_always_valid_interval_ends_where_the_evidence_reaches_its_limit(seeds: int):
    values = np.random.default_rng(4).normal(0.3, 0.05, seeds)
    interval, plain = always_valid_interval(values), t_interval(values)  # type: ignore[arg-type]
    assert math.exp(log_e_value(interval, interval.low)) == pytest.approx(20)  # type: ignore[arg-type]
    assert math.exp(log_e_value(interval, interval.high)) == pytest.approx(20)  # type: ignore[arg-type]
    assert interval.mean == plain.mean
    assert interval.low < plain.low  # type: ignore[operator]
    assert interval.high > plain.high  # type: ignore[operator]


def test_two_seeds_exclude_nothing_and_equal_ones_have_no_spread():
    assert always_valid_interval([0.1, 0.2]).low is None
    assert always_valid_interval([0.1]).error is None
    assert always_valid_interval([0.1, 0.1, 0.1]) == t_interval([0.1, 0.1, 0.1])
    assert always_valid_p_below(t_interval([0.1, 0.1]), 0.2) == 0.0


def test_looking_after_every_seed_stays_honest_only_with_the_always_valid_test():
    """From 3 to 20 seeds, stopping at the first interval that excludes the truth: 2000 experiments."""
    draws = np.random.default_rng(5).normal(0.3, 0.05, (2000, 20))
    wrong = {method.name: 0 for method in (T_TEST, ALWAYS_VALID)}
    for x in draws:
        for method in (T_TEST, ALWAYS_VALID):
            intervals = (method.interval(x[:n]) for n in range(3, 21))
            wrong[method.name] += any(one.low > 0.3 or one.high < 0.3 for one in intervals)  # type: ignore[operator]
    assert wrong[T_TEST.name] / 2000 > 0.15
    assert wrong[ALWAYS_VALID.name] / 2000 <= 0.05


def test_always_valid_p_values_agree_with_the_interval():
    interval = always_valid_interval([0.28, 0.30, 0.33, 0.31, 0.29])
    for bound in (0.1, 0.25, 0.3, 0.36, 0.5):
        inside = interval.low <= bound <= interval.high  # type: ignore[operator]
        excluded = min(always_valid_p_below(interval, bound), ALWAYS_VALID.p_above(interval, bound)) < 0.05
        assert inside != excluded, bound
