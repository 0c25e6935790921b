"""Sweeps: how they combine, what they draw, and what their variants are called."""

import dataclasses

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.experiment import spec
from jaxgpt.experiment.spec import Experiment, share, times
from jaxgpt.experiment.sweep import (
    axis,
    chain,
    grid,
    integers,
    log_uniform,
    sample,
    uniform,
    variants_of,
    when,
    zipped,
)

A, B = axis("model.a", [1, 2]), axis("model.b", [3, 4])
POSITIONS = axis("model.position.type", ["rope", "alibi"])


def is_rope(overrides):
    return overrides["model.position.type"] == "rope"


def names(sweep, **more):
    return [variant.name for variant in variants_of(sweep, **more)]


def test_an_axis_adds_a_setting_to_what_is_there():
    before = {"train.steps": 5}
    assert A(before) == [{"train.steps": 5, "model.a": 1}, {"train.steps": 5, "model.a": 2}]
    assert before == {"train.steps": 5}, "which stays as it was"


def test_a_grid_has_every_combination_and_changes_the_last_fastest():
    found = [tuple(one.values()) for one in grid(A, B)({})]
    assert found == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert grid()({"x": 1}) == [{"x": 1}]
    assert [tuple(one.values()) for one in grid(grid(A, B), axis("model.c", [5]))({})] == [(*one, 5) for one in found]


def test_zipped_goes_through_sweeps_together():
    assert zipped(A, B)({}) == [{"model.a": 1, "model.b": 3}, {"model.a": 2, "model.b": 4}]
    assert zipped(grid(A, axis("model.c", [0])), B)({"x": 9})[1] == {"x": 9, "model.a": 2, "model.c": 0, "model.b": 4}
    with pytest.raises(ConfigError, match="zipped: sweeps of 2, 3 settings; make them equally long"):
        zipped(A, axis("model.b", [3, 4, 5]))({})


def test_a_chain_has_one_sweep_after_the_other():
    assert chain(A, B)({}) == [{"model.a": 1}, {"model.a": 2}, {"model.b": 3}, {"model.b": 4}]


def test_a_condition_sees_what_was_chosen_before():
    thetas = axis("model.position.theta", [1e4, 1e6])
    found = grid(POSITIONS, when(is_rope, thetas))({})
    assert found == [
        {"model.position.type": "rope", "model.position.theta": 1e4},
        {"model.position.type": "rope", "model.position.theta": 1e6},
        {"model.position.type": "alibi"},
    ]
    other = grid(POSITIONS, when(is_rope, thetas, otherwise=axis("train.steps", [7])))({})
    assert other[2] == {"model.position.type": "alibi", "train.steps": 7}
    with pytest.raises(ConfigError, match=r"asks for 'model.position.type', and before it nothing is set; put it beh"):
        grid(when(is_rope, thetas), POSITIONS)({})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: axis("model.a", []), "axis model.a: has no values"),
        (lambda: axis("model.a", "rope"), "axis model.a: expected a list of values, got 'rope'"),
        (lambda: axis("model.a", {"x": 1}), "axis model.a: expected a list of values"),
        (lambda: axis("model..a", [1]), "expected a dotted path"),
        (lambda: axis("", [1]), "expected a dotted path"),
        (lambda: axis("seed", [0, 1]), "every variant has the same seeds; choose with --seeds N or --where 'seed<2'"),
        (lambda: grid(A, A)({}), "axis model.a: model.a is set already, to 1"),
        (lambda: zipped(A, A)({}), "axis model.a: model.a is set already"),
        (
            lambda: grid(POSITIONS, axis("model.position", ["nope"]))({}),
            "model.position.type is set already, to 'rope'",
        ),
        (lambda: sample(0, {"model.a": [1]}), "expected 1 draw or more"),
        (lambda: sample(1, {}), "got 1 of 0"),
        (lambda: sample(3, {"model.a": [1, 2]}), "there are 2 different draws, and 3 are wanted"),
        (lambda: sample(1, {"model.a": "rope"}), "model.a: expected a list of values or a distribution, got 'rope'"),
        (lambda: sample(1, {"model.a": []}), "expected a list of values or a distribution"),
        (lambda: uniform(2, 1), r"uniform\(2, 1\): the first must be less"),
        (lambda: log_uniform(0, 1), r"log_uniform\(0, 1\): both must be positive"),
        (lambda: integers(0, 1.5), "both must be whole"),
    ],
)
def test_sweeps_that_cannot_be(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# --------------------------------------------------------------------------------------------------------------- random

SPACE = {
    "train.learning_rate": log_uniform(1e-4, 1e-2),
    "train.ema": uniform(0.9, 0.999),
    "model.num_layers": integers(2, 5),
    "model.position.type": ["rope", "alibi", "nope"],
}


def test_draws_are_those_of_the_seed_on_every_machine():
    drawn = [list(one.values()) for one in sample(2, SPACE)({})]
    assert drawn == [[0.001848, 0.9225, 2, "nope"], [0.0002049, 0.9966, 2, "alibi"]]
    assert sample(2, SPACE, seed=1)({}) != sample(2, SPACE)({})


def test_more_draws_begin_with_those_of_fewer_and_paths_do_not_disturb_each_other():
    assert sample(9, SPACE)({})[:4] == sample(4, SPACE)({})
    one = {path: SPACE[path] for path in ("train.ema", "train.learning_rate")}
    found, fewer = sample(5, SPACE)({}), sample(5, one)({})
    assert [draw["train.learning_rate"] for draw in found] == [draw["train.learning_rate"] for draw in fewer]


def test_draws_fill_their_ranges():
    found = sample(400, SPACE)({})
    rates = [one["train.learning_rate"] for one in found]
    assert 1e-4 <= min(rates) < 1.2e-4 < 8e-3 < max(rates) <= 1e-2
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / 400 < 0.6, "as many in either decade"
    emas = [one["train.ema"] for one in found]
    assert 0.9 <= min(emas) < 0.905 < 0.99 < max(emas) <= 0.999
    assert 0.4 < sum(ema < 0.9495 for ema in emas) / 400 < 0.6
    layers = [one["model.num_layers"] for one in found]
    assert {number: type(number) for number in layers} == dict.fromkeys((2, 3, 4, 5), int)
    assert all(70 < layers.count(number) < 130 for number in (2, 3, 4, 5))
    kinds = [one["model.position.type"] for one in found]
    assert all(100 < kinds.count(kind) < 167 for kind in ("rope", "alibi", "nope"))


def test_a_small_space_is_drawn_whole_and_never_twice():
    found = sample(6, {"model.a": [1, 2, 3], "model.b": integers(0, 1)})({})
    assert sorted(tuple(one.values()) for one in found) == [(a, b) for a in (1, 2, 3) for b in (0, 1)]


def test_a_sample_is_a_sweep_like_others():
    assert len(grid(POSITIONS, sample(3, {"train.learning_rate": log_uniform(1e-4, 1e-2)}))({})) == 6


# ------------------------------------------------------------------------------------------------------------- variants


def test_variants_have_the_overrides_as_variants_have_them():
    rates = axis("train.learning_rate", [1e-3, 2e-3])
    found = variants_of(grid(axis("model.num_layers", [2]), POSITIONS, rates), parent="x", group="g", panel="p")
    assert found[1] == spec.Variant(
        "rope-learning_rate=0.002",
        {"model": {"num_layers": 2, "position": {"type": "rope"}}, "train": {"learning_rate": 2e-3}},
        parent="x",
        label="rope, learning rate 0.002",
        group="g",
        panel="p",
        axes=("model.num_layers", "model.position.type", "train.learning_rate"),
    )
    below = variants_of(axis("model.position.theta", [1.0, 2.0]), shared={"model.position": "rope"}, prefix="my-")
    assert below[0].overrides == {"model": {"position": {"type": "rope", "theta": 1.0}}}
    assert (below[0].name, below[0].label) == ("my-theta=1", "my, theta 1")


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        (POSITIONS, ["rope", "alibi"]),
        (
            grid(POSITIONS, when(is_rope, axis("model.position.theta", [1e4, 1e6]))),
            ["rope-theta=10000", "rope-theta=1e+06", "alibi"],
        ),
        (grid(A, axis("model.bias", [True, False])), [f"a={a}-bias={b}" for a in (1, 2) for b in ("true", "false")]),
        (axis("model.a", [None, 0.5, 1e-5, 0.1 + 0.2]), ["a=none", "a=0.5", "a=1e-05", "a=0.30000000000000004"]),
        (axis("model.order", [["local", "global"], ["global"]]), ["order=local+global", "order=global"]),
        # the last parts of two paths are the same
        (
            grid(axis("model.mixer.scale", [1, 2]), axis("model.feedforward.scale", [3, 4])),
            [f"mixer.scale={one}-feedforward.scale={two}" for one in (1, 2) for two in (3, 4)],
        ),
        (
            grid(axis("model.scale", [1, 2]), axis("model.mixer.scale", [3, 4])),
            [f"model.scale={one}-mixer.scale={two}" for one in (1, 2) for two in (3, 4)],
        ),
        # two axes have kinds in common
        (
            grid(axis("model.position.near.type", ["rope", "nope"]), axis("model.position.far.type", ["nope"])),
            ["rope", "nope"],
        ),
        (
            zipped(axis("model.position.near.type", ["rope", "nope"]), axis("model.position.far.type", ["nope", "t5"])),
            ["near=rope-far=nope", "near=nope-far=t5"],
        ),
        # mappings
        (
            axis("model.norm", [{"type": "rmsnorm", "eps": 1}, {"type": "layernorm", "eps": 1}]),
            ["rmsnorm", "layernorm"],
        ),
        (
            axis(
                "model.position", ["rope", {"type": "rope", "theta": 5.0, "x": {"type": "yarn", "factor": 4}}, "nope"]
            ),
            ["rope", "rope-theta=5-yarn-factor=4", "nope"],
        ),
        (
            axis("model.sizes", [{"width": 1, "depth": 2}, {"width": 3, "depth": 2}]),
            ["sizes=width=1", "sizes=width=3"],
        ),
        # functions of what lies below
        (axis("train.steps", [times(0.5), times(2), share(0.1)]), ["steps=0.5x", "steps=2x", "steps=share0.1"]),
        (axis("train.steps", [lambda below: 1, lambda below: 2]), ["steps=lambda", "steps=lambda-2"]),
        # what no name can have in it
        (axis("data.corpus.path", ["/texts/a b", "/texts/a:b"]), ["texts-a-b", "texts-a-b-2"]),
        (axis("data.corpus.path", ["日本", "_x"]), ["base", "v_x"]),
        # arms without a setting, or without any
        (chain(grid(), A), ["base", "a=1", "a=2"]),
        (chain(A, B), ["a=1", "a=2", "b=3", "b=4"]),
        (axis("model.a", [1]), ["base"]),
    ],
)
def test_names(sweep, expected):
    found = variants_of(sweep)
    assert [variant.name for variant in found] == expected
    assert len({variant.label or variant.name for variant in found}) == len(found)
    spec.check(Experiment("e", "", {}, tuple(dataclasses.replace(one, overrides={}) for one in found)))


def test_long_names_are_cut_and_stay_apart():
    paths = [f"data.corpus.setting_number_{number}" for number in range(10)]
    found = names(grid(*(axis(path, [1, 2]) for path in paths)))
    assert max(map(len, found)) <= 100
    assert len(set(found)) == 1024
    assert found == names(grid(*(axis(path, [1, 2]) for path in paths)))


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (chain(), "variants_of: the sweep is empty"),
        (axis("model.a", [1, 1]), "the same settings twice: model.a=1"),
        (axis("model.a", [times(2), times(2)]), "the same settings twice: model.a=2x"),
        (chain(grid(), grid()), "the same settings twice: nothing set"),
    ],
)
def test_sweeps_without_variants_of_their_own(sweep, message):
    with pytest.raises(ConfigError, match=message):
        variants_of(sweep)


def test_a_sweep_is_an_experiment(toy):
    text = (toy.experiments / "toy.py").read_text()
    body = """from jaxgpt.experiment.sweep import axis, grid, variants_of


def variants():
    return variants_of(
        grid(axis("model.position.type", ["rope", "alibi"]), axis("train.steps", [times(0.5), times(1)]))
    )
"""
    text = text[: text.index("def variants")] + body + text[text.index("\n\ndef claims") :]
    (toy.experiments / "toy.py").write_text(text)
    plan = toy.plan(seeds=1)
    assert [(arm.name, arm.training.train.steps) for arm in plan.arms] == [
        ("rope-steps=0.5x", 2), ("rope-steps=1x", 4), ("alibi-steps=0.5x", 2), ("alibi-steps=1x", 4),
    ]  # fmt: skip
