from __future__ import annotations

import math

import numpy as np
import pytest

from jaxgpt.experiment.serve.curves import MOST_POINTS, Curves, over_seeds, points_each
from jaxgpt.experiment.serve.reading import Training
from jaxgpt.experiment.serve.watch import Store
from jaxgpt.experiment.statistics import t_interval
from tests.experiment.serve.conftest import Shelf, line


def run_of(losses: list[float], every: int = 10, speed: float = 1.0) -> list[Training]:
    return [Training(every * n, 128.0 * every * n, speed * n, loss, None) for n, loss in enumerate(losses, 1)]


def test_points_are_means_over_seeds_with_t_intervals():
    losses = [[5.0, 4.0, 3.0], [5.5, 4.2, 3.1], [5.1, 4.1]]
    found = over_seeds([run_of(one) for one in losses], "step")
    assert found.x == [10, 20, 30]
    assert found.count == [3, 3, 2]
    for n, values in enumerate(([5.0, 5.5, 5.1], [4.0, 4.2, 4.1], [3.0, 3.1])):
        interval = t_interval(values)
        assert (found.mean[n], found.low[n], found.high[n]) == (interval.mean, interval.low, interval.high)


def test_one_seed_has_no_interval_and_nothing_is_nothing():
    found = over_seeds([run_of([5.0, 4.0])], "tokens")
    assert (found.x, found.low, found.count) == ([1280, 2560], [None, None], [1, 1])
    assert over_seeds([], "step").x == over_seeds([[]], "step").x == []


def test_time_is_the_mean_of_the_seeds_at_the_same_steps():
    found = over_seeds([run_of([5.0, 4.0]), run_of([5.0, 4.0], speed=3.0)], "seconds")
    assert found.x == [2.0, 4.0]


def test_losses_that_are_no_numbers_are_left_out():
    found = over_seeds([run_of([5.0, math.nan, 3.0]), run_of([5.0, 4.0, math.inf])], "step")
    assert (found.count, found.mean) == ([2, 1, 1], [5.0, 4.0, 3.0])


@pytest.mark.parametrize("lines", [499, 500, 501, 1000, 7777])
def test_long_curves_are_thinned_by_means(lines: int):
    losses = np.linspace(5, 3, lines)
    found = over_seeds([run_of(losses.tolist())], "step")
    assert MOST_POINTS / 2 <= len(found.x) <= MOST_POINTS
    assert found.x == sorted(found.x)
    size = math.ceil(lines / MOST_POINTS)
    assert found.mean[0] == pytest.approx(losses[:size].mean())
    assert found.mean[-1] == pytest.approx(losses[size * (len(found.x) - 1) :].mean())


def test_many_curves_share_the_points_of_a_picture():
    assert [points_each(curves) for curves in (0, 1, 48, 200, 10_000)] == [500, 500, 500, 120, 60]


def test_curves_are_made_again_only_where_metrics_changed(shelf: Shelf):
    folder = shelf.run(lines=10)
    store, curves = Store(shelf.root), Curves()
    first = curves.of(store.runs("trial"), "step", 500)
    assert curves.of(store.runs("trial"), "step", 500)["training"] is first["training"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line(110, 3.0))
    assert curves.of(store.runs("trial"), "step", 500)["training"]["x"][-1] == 110
