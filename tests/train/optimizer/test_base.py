import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxgpt import registry
from jaxgpt.config import decode, encode
from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.params import flatten
from jaxgpt.nn.position.t5 import T5Config
from jaxgpt.train.optimizer.adamw import AdamWConfig
from jaxgpt.train.optimizer.base import OptimizerConfig, decay_mask, per_parameter

KINDS = registry.kinds(OptimizerConfig)


def test_only_matrices_decay():
    config = DecoderConfig(
        vocab_size=8, train_length=4, num_heads=2, width=8, bias=True, position=T5Config(), tie_embeddings=False
    )
    model = jax.eval_shape(config.make, jax.random.key(0))
    mask = nnx.to_flat_state(nnx.state(decay_mask(model), nnx.Param))
    decaying = {"/".join(map(str, path)) for path, leaf in mask if leaf.get_raw_value() is True}
    still = {"/".join(map(str, path)) for path, leaf in mask if leaf.get_raw_value() is False}
    assert len(decaying) + len(still) == len(jax.tree.leaves(model))
    matrices = {f"blocks/mixer/{name}" for name in ("query", "key", "value", "output")}
    matrices |= {"blocks/feedforward/up", "blocks/feedforward/down", "embedding", "head_matrix"}
    assert matrices <= decaying
    assert all("bias" in path or "scale" in path for path in still - {"position/table"})
    assert not any("bias" in path.rpartition("/")[2] or "norm" in path for path in decaying)


def test_what_is_no_parameter_does_not_decay():
    assert decay_mask({"counter": jnp.zeros(2)}) == {"counter": False}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_moves_against_the_gradient_and_names_its_paper(kind, parameters):
    assert re.search(r"arXiv:\d{4}\.\d{5}", KINDS[kind].__doc__)
    config = KINDS[kind]()
    assert decode(OptimizerConfig, encode(config)) == config
    transformation, model = config.make(lambda step: 0.1), parameters()

    @jax.jit
    def step(model, state):
        updates, state = transformation.update(jax.grad(size)(model), state, model)
        return optax.apply_updates(model, updates), state

    def size(model):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(model))

    state, before = transformation.init(model), float(size(model))
    for _ in range(5):
        model, state = step(model, state)
    assert float(size(model)) < before


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shrinks_what_decays_and_nothing_else(kind, parameters):
    """Without a gradient: by about the learning rate times the weight decay."""
    config = dataclasses.replace(KINDS[kind](), weight_decay=0.5)
    transformation, model = config.make(lambda step: 0.1), parameters()
    zero = jax.tree.map(jnp.zeros_like, model)
    updates, state = jax.jit(transformation.update)(zero, transformation.init(model), model)
    moved = optax.apply_updates(model, updates)
    if config.averages:
        moved = config.average(state, moved)
    np.testing.assert_allclose(moved["matrix"][...], 0.95 * model["matrix"][...], rtol=1e-5)
    np.testing.assert_array_equal(moved["gain"][...], model["gain"][...])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_works_on_models_and_in_parts(kind, model):
    """Of all of its shapes, with what optax masks: the tree that comes back is the model's, and its numbers are those
    of the optimizer that sees all of it."""
    transformation, gradients = KINDS[kind]().make(lambda step: 0.1), jax.tree.map(jnp.ones_like, model)

    def label(path, _):
        return "one" if "mixer" in path else "other"

    divided = optax.partition({"one": transformation, "other": transformation}, lambda tree: per_parameter(tree, label))
    whole, parts = (jax.jit(one.update)(gradients, one.init(model), model)[0] for one in (transformation, divided))
    assert jax.tree.structure(parts) == jax.tree.structure(model)
    for name, array in flatten(whole).items():
        np.testing.assert_allclose(flatten(parts)[name], array, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta1": 1.0}, r"optimizer: beta1 must be at least 0 and below 1, got 1\.0"),
        ({"beta2": -0.1}, "optimizer: beta2 must be at least 0"),
        ({"epsilon": 0}, "optimizer: epsilon must be positive, got 0"),
        ({"weight_decay": -1}, "optimizer: weight_decay must not be negative, got -1"),
        ({"weight_deacy": 1}, "optimizer.weight_deacy: no such key; did you mean 'weight_decay'"),
        ({"type": "lion", "beta2": 1.5}, "optimizer: beta2 must be at least 0"),
        ({"type": "muon", "steps": 0}, "optimizer: steps must be at least 1 and scale positive"),
        ({"type": "muon", "beta": 1}, "optimizer: beta must be at least 0 and below 1"),
        ({"type": "adafactor", "decay": 0}, "optimizer: decay must be above 0 and at most 1, got 0"),
        ({"type": "adafactor", "factored_from": 0}, "optimizer: factored_from must be at least 1, got 0"),
        ({"type": "schedule_free", "beta1": 0}, "optimizer: beta1 must be positive: at 0 there would be no average"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        decode(OptimizerConfig, {"type": "adamw", **wrong}, "optimizer")


def test_a_kind_that_lacks_a_method_says_so():
    with pytest.raises(TypeError, match=r"OptimizerConfig must define make\(\)"):
        OptimizerConfig().make(lambda step: 0.1)
    with pytest.raises(TypeError, match="AdamWConfig does not average"):
        AdamWConfig().average(None, None)
