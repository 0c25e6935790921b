"""Parameters with settings of their own, against the optimizer of all of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt import registry
from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.mup import Growth
from jaxgpt.nn.params import flatten
from jaxgpt.train.groups import GroupConfig, make_optimizer
from jaxgpt.train.optimizer.adamw import AdamWConfig
from jaxgpt.train.optimizer.base import OptimizerConfig

CONFIG = DecoderConfig(vocab_size=16, train_length=8, num_layers=2, num_heads=2, width=16, tie_embeddings=False)


@pytest.fixture(scope="module")
def model():
    return jax.jit(CONFIG.make)(jax.random.key(0))


def update(model, config=None, rate=0.1, clip=None, groups=(), slope=1.0, growth=None):
    """The updates of one step, whose gradients are all `slope`."""
    optimizer = make_optimizer(config or AdamWConfig(), lambda step: rate, clip, groups, growth)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, slope), model)
    updates, state = jax.jit(optimizer.update)(gradients, optimizer.init(model), model)
    return flatten(updates), state


@pytest.mark.parametrize("kind", sorted(registry.kinds(OptimizerConfig)))
def test_a_group_moves_as_at_its_own_rate(model, kind):
    config = registry.kinds(OptimizerConfig)[kind]()
    groups = (GroupConfig(("blocks/mixer/*", "embedding"), learning_rate=0.5),)
    found, _ = update(model, config, groups=groups)
    usual, half = update(model, config)[0], update(model, config, rate=0.05)[0]
    for name, array in found.items():
        expected = half if name.startswith("blocks/mixer/") or name == "embedding" else usual
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-7, err_msg=name)


def test_the_first_group_that_matches_counts(model):
    groups = (GroupConfig(("embedding",), learning_rate=0.0), GroupConfig(("*",), learning_rate=2.0))
    found, twice = update(model, groups=groups)[0], update(model, rate=0.2)[0]
    for name, array in found.items():
        np.testing.assert_allclose(array, 0 if name == "embedding" else twice[name], rtol=1e-5, err_msg=name)


def test_what_is_frozen_does_not_move_and_costs_nothing(model):
    """Nor does it count in the norm that is clipped."""
    names = ("blocks/*", "final_norm/*", "embedding")
    groups = (GroupConfig(names, learning_rate=0.0),)
    found, state = update(model, AdamWConfig(epsilon=1.0, weight_decay=0.0), clip=1.0, groups=groups)
    for name, array in found.items():
        assert np.any(array) == (name == "head_matrix"), name
    head = flatten(model)["head_matrix"]
    clipped = 1 / np.sqrt(head.size)
    np.testing.assert_allclose(found["head_matrix"], -0.1 * clipped / (clipped + 1), rtol=1e-4)
    kept = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert kept == 2 * head.size


def test_decay_of_a_group(model):
    groups = (GroupConfig(("*/scale",), weight_decay=True), GroupConfig(("*/query",), weight_decay=False))
    found, _ = update(model, groups=groups, slope=0.0)
    for name, array in found.items():
        decays = name.rpartition("/")[2] not in ("bias", "query")  # scales begin at one
        np.testing.assert_allclose(array, -0.01 * flatten(model)[name] if decays else 0, rtol=1e-5, err_msg=name)


def test_an_average_keeps_what_is_frozen(model):
    config = registry.kinds(OptimizerConfig)["schedule_free"]()
    groups = (GroupConfig(("embedding",), learning_rate=0.0), GroupConfig(("head_matrix",), learning_rate=0.5))
    _, state = update(model, config, groups=groups)
    average = flatten(config.average(state, model))
    np.testing.assert_array_equal(average["embedding"], flatten(model)["embedding"])
    assert np.any(average["head_matrix"] != flatten(model)["head_matrix"])


# ------------------------------------------------------------------------------------------------------------------ muP

GROWTH = {"blocks/mixer/query": Growth(16, 16, 4, 4), "blocks/feedforward/up": Growth(16, 64, 8, 32)}


@pytest.mark.parametrize("kind", sorted(registry.kinds(OptimizerConfig)))
def test_matrices_that_grew_move_as_at_a_rate_of_their_own_times_their_groups(model, kind):
    config = dataclasses.replace(registry.kinds(OptimizerConfig)[kind](), weight_decay=0.0)
    groups = (GroupConfig(("blocks/mixer/*",), learning_rate=0.5), GroupConfig(("embedding",), learning_rate=0.0))
    alone, grouped = update(model, config, growth=GROWTH)[0], update(model, config, growth=GROWTH, groups=groups)[0]
    usual = update(model, config)[0]
    for name, array in usual.items():
        factor = config.width_factor(GROWTH[name]) if name in GROWTH else 1.0
        assert (factor == 1.0) == (name not in GROWTH)
        np.testing.assert_allclose(alone[name], factor * array, rtol=1e-4, atol=1e-7, err_msg=name)
        factor *= 0.5 if name.startswith("blocks/mixer/") else float(name != "embedding")
        np.testing.assert_allclose(grouped[name], factor * array, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("kind", sorted(registry.kinds(OptimizerConfig)))
def test_they_decay_as_in_the_base_model(model, kind):
    """Learning rate times weight decay is the same at all widths, and a group's is that of its own rate."""
    config = registry.kinds(OptimizerConfig)[kind]()
    groups = (GroupConfig(("blocks/*",), learning_rate=0.5),)
    for some in ((), groups):
        found, usual = (update(model, config, groups=some, slope=0.0, growth=growth)[0] for growth in (GROWTH, None))
        for name, array in usual.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-8, err_msg=name)


def test_without_growth_the_optimizer_is_the_one_of_before(model):
    """With the same state, which checkpoints hold."""
    optimizer, like = (make_optimizer(AdamWConfig(), lambda step: 0.1, 1.0, (), growth) for growth in ({}, None))
    assert jax.tree.structure(optimizer.init(model)) == jax.tree.structure(like.init(model))
    assert {"1.0", "0.25", "0.5"} <= {
        part for path in flatten(update(model, growth=GROWTH)[1]) for part in path.split("/")
    }


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"match": ["blocks/mixer/qery"]}], r"train.groups: no parameter matches 'blocks/mixer/qery'; did you mean"),
        ([{"match": []}], r"groups\[0\]: match must name at least one parameter"),
        ([{"match": ["*"], "learning_rate": -1}], r"groups\[0\]: learning_rate must not be negative, got -1"),
    ],
)
def test_mistakes_are_named(model, groups, message):
    with pytest.raises(ConfigError, match=message):
        update(model, groups=decode(tuple[GroupConfig, ...], groups, "groups"))
