from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from jaxgpt.experiment.report import Curve, Report
from jaxgpt.experiment.report.series import (
    Point,
    curve_variants,
    exponentials,
    in_lengths,
    limits,
    log_ticks,
    points,
    ratios,
    thinned,
    validation,
)
from jaxgpt.experiment.results import Results, Row
from jaxgpt.experiment.statistics import Interval, t_interval


def test_points_average_over_seeds_and_leave_out_what_is_not_finite():
    rows = [
        Row("e", "rope", seed, "fixed_target_nll", context, loss, "nats/token")
        for seed, context, loss in ((0, 8, 3.0), (1, 8, 3.2), (0, 16, math.inf), (0, 32, 4.0), (1, 32, math.nan))
    ]
    found = points(Results(rows, 8), "rope", "fixed_target_nll")
    assert [(point.context, point.interval.count) for point in found] == [(8, 2), (32, 1)]
    assert found[0].interval.mean == pytest.approx(3.1)
    assert exponentials(found)[0].interval.mean == pytest.approx(math.exp(3.1))


def test_ratios_are_paired_by_seed():
    rows = [
        Row("e", "rope", seed, "fixed_target_nll", context, loss, "nats/token")
        for seed, context, loss in ((0, 8, 1.0), (1, 8, 3.0), (0, 16, 1.5), (1, 16, 3.5), (2, 16, 9.0))
    ]
    results = Results(rows, 8)
    home, far = ratios(results, "rope", "fixed_target_nll")
    assert (home.interval.mean, home.interval.low) == (1.0, 1.0)
    assert far.interval == t_interval([0.5, 0.5]).exp()
    assert ratios(results, "alibi", "fixed_target_nll") == []


@pytest.mark.parametrize(
    ("context", "name"), [(32, "L/4"), (128, "L"), (512, "4L"), (8, "L/16"), (96, "3L/4"), (100, ""), (192, "")]
)
def test_contexts_are_named_in_training_lengths(context: int, name: str):
    assert in_lengths(context, 128) == name


def test_thinned_curves_keep_their_mean():
    curve = Curve("rope", 0, range(1001), range(1001), [float(i % 2) for i in range(1000)] + [math.nan])
    tokens, loss = thinned(curve, most=100)
    assert len(tokens) == len(loss) == 100
    assert set(loss) == {0.5}
    assert tokens[0] == 4.5
    short = Curve("rope", 0, [1, 2], [10, 20], [3.0, 2.0])
    assert thinned(short) == ([10.0, 20.0], [3.0, 2.0])


def test_validation_is_averaged_over_seeds(make_report: Callable[..., Report]):
    curves = [Curve("rope", seed, [1], [8], [3.0], [(1, 8, 2.0 + seed), (2, 16, math.nan)]) for seed in (0, 1)]
    report = make_report(curves=[Curve("late", 0, [1], [8], [3.0]), *curves])
    assert validation(report, "rope") == [(8, t_interval([2.0, 3.0]))]
    assert curve_variants(report) == ["rope", "late"], "known variants first, in their order"


@pytest.mark.parametrize(
    ("low", "high"), [(20.0, 75.0), (0.9, 2.9), (3.0, 3.1), (1.0, 5000.0), (24.0, 26.0), (2e-5, 9)]
)
def test_ticks_are_few_round_and_within_the_axis(low: float, high: float):
    ticks = log_ticks(low, high)
    assert 4 <= len(ticks) <= 19
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    assert all(float(f"{tick:.3g}") == tick for tick in ticks)


def test_a_diverged_model_leaves_the_axis():
    curve = [Point(8, Interval(20.0, None, None, None, 1)), Point(16, Interval(1e300, 1e299, 1e301, 0.1, 3))]
    low, high = limits([curve])
    assert low == 20.0
    assert high < 1e6


def test_limits_follow_intervals_only_so_far():
    tame = [Point(8, Interval(20.0, 19.0, 21.0, 0.1, 3)), Point(16, Interval(40.0, 38.0, 42.0, 0.1, 3))]
    wild = [Point(8, Interval(20.0, 0.1, 4000.0, 0.1, 2)), Point(16, Interval(40.0, None, None, None, 1))]
    assert limits([tame]) == (19.0, 42.0)
    assert limits([wild]) == (20.0 / 1.5, 60.0)
