from __future__ import annotations

import json
import math

import pytest

from jaxgpt.experiment.serve.arms import arms_of
from jaxgpt.experiment.serve.comparison import comparison, differences, results_of
from jaxgpt.experiment.serve.watch import Store
from jaxgpt.experiment.statistics import t_interval
from tests.experiment.serve.conftest import Shelf


def views_of(shelf: Shelf) -> list[dict]:
    store = Store(shelf.root)
    return comparison(results_of("trial", arms_of(store.runs("trial"), store.about("trial"))))


def test_perplexities_by_context_with_intervals_over_seeds(full: Shelf):
    perplexity, relative = views_of(full)
    assert (perplexity["name"], relative["name"]) == ("Fixed targets: perplexity", "Fixed targets: relative to L")
    assert (perplexity["contexts"], perplexity["names"]) == ([8, 32, 128], ["L/4", "L", "4L"])
    assert list(perplexity["arms"]) == ["alibi", "rope", "yarn", "5-gram"]
    interval = t_interval([3.2 + 0.016 + 0.01 * seed for seed in range(3)]).exp()
    rope = perplexity["arms"]["rope"]
    assert rope["mean"][1] == pytest.approx(interval.mean, rel=1e-5)
    assert rope["low"][1] == pytest.approx(interval.low, rel=1e-5)
    assert rope["count"] == [3, 3, 3]
    assert perplexity["arms"]["5-gram"]["low"] == [None] * 3
    assert relative["arms"]["yarn"]["mean"][2] == pytest.approx(math.exp(0.0005 * 96), rel=1e-5)


def test_other_metrics_have_views_of_their_own_and_nonsense_none(shelf: Shelf):
    folder = shelf.run(evaluated=("rope",))
    extra = [
        {"metric": "copy_exact_match", "context": 16, "value": 0.5, "unit": "share"},
        {"metric": "position_nll", "context": 4, "value": 3.0, "unit": "nats/token"},
        {"metric": "copy_exact_match", "context": 0, "value": 0.5},
        {"metric": "copy_exact_match", "context": 8, "value": "high"},
        "nothing",
    ]
    done = {"rope-hash": {"variant": "rope", "measurements": extra}, "other": {"measurements": 3}}
    (folder / "evaluation.json").write_text(json.dumps(done))
    assert [(view["name"], view["contexts"], view["unit"]) for view in views_of(shelf)] == [
        ("copy exact match", [16], "share"),
        ("Loss by position", [4], "nats/token"),
    ]


def test_nothing_measured_is_nothing_to_compare(shelf: Shelf):
    shelf.run()
    assert views_of(shelf) == []


def test_only_settings_that_differ_are_listed():
    configs = {
        "a": {"model": {"width": 32, "position": {"type": "rope", "theta": 1e4}}, "seed": 0, "list": [1, 2]},
        "b": {"model": {"width": 32, "position": {"type": "alibi"}}, "seed": 0, "list": [1, 3]},
    }
    assert differences(configs) == {
        "model.position.type": ['"rope"', '"alibi"'],
        "model.position.theta": ["10000.0", None],
        "list": ["[1, 2]", "[1, 3]"],
    }
