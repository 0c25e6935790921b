"""What every token mixer must hold to; kinds are found by name."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import nnx

from jaxgpt import registry
from jaxgpt.config import decode, encode, write_yaml
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerConfig, MixerContext
from jaxgpt.nn.position.base import PositionEncoding, Positions

KINDS = registry.kinds(MixerConfig)
B, T, WIDTH = 2, 10, 32
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, WIDTH)), jnp.float32)

CONFIGS = [
    pytest.param(config, id=f"{kind}-{number}")
    for kind, found in KINDS.items()
    for number, config in enumerate(found.examples())
]

each = pytest.mark.parametrize("config", CONFIGS)


def dims(bias=False):
    return LayerDims(
        width=WIDTH, num_heads=4, num_kv_heads=2, head_dim=8, bias=bias, dropout=0.0, init_std=0.2, residual_std=0.1
    )


@functools.cache
def make(config, bias=False, seed=0):
    """The mixer, its parameters moved off their start: a table of zeros would hide what it does."""
    mixer = jax.jit(lambda: config.make(dims(bias), jax.random.key(seed)))()
    return jax.tree.map(lambda p: p + 0.3 * np.random.default_rng(1).random(p.shape, np.float32), mixer)


def cut(tree, begin, end):
    return jax.tree.map(lambda a: a[:, begin:end], tree)


def context(positions, at=None, key=None, window=None):
    return MixerContext(positions, PositionEncoding(), Mask(window), at, key)


@jax.jit
def mix(mixer, x, context, state=None):
    return mixer(x, context, state)


@each
def test_docstring_names_the_paper(config):
    assert re.search(r"arXiv:\d{4}\.\d{5}", type(config).__doc__)


@each
def test_config_survives_yaml(config):
    assert decode(MixerConfig, yaml.safe_load(write_yaml(encode(config)))) == config
    assert hash(config) == hash(decode(MixerConfig, encode(config)))


@each
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_shape_and_type_stay(config, dtype):
    y, state, aux = mix(make(config), X.astype(dtype), context(Positions.of(X)))
    assert (y.shape, y.dtype) == (X.shape, dtype)
    assert state is None
    assert isinstance(aux, dict)


@each
def test_parameters_are_float32_and_name_their_axes(config):
    for path, parameter in nnx.to_flat_state(nnx.state(make(config, bias=True), nnx.Param)):
        assert parameter[...].dtype == jnp.float32, path
        assert len(parameter.get_metadata()["axes"]) == parameter[...].ndim, path


@each
def test_gradients_are_finite_and_reach_every_parameter(config):
    gradient = jax.jit(jax.grad(lambda mixer: (mixer(X, context(Positions.of(X)), None)[0] ** 2).sum()))(make(config))
    for path, leaf in nnx.to_flat_state(nnx.state(gradient, nnx.Param)):
        assert jnp.isfinite(leaf[...]).all(), path
        assert jnp.any(leaf[...] != 0), path


@each
def test_no_token_sees_a_later_one(config):
    mixer = make(config)
    reach = np.abs(jax.jit(jax.grad(lambda x: mixer(x, context(Positions.of(x)), None)[0][:, 4].sum()))(X)).sum((0, 2))
    assert np.all(reach[5:] == 0)
    assert np.all(reach[:5] > 0)


@each
def test_documents_of_a_row_do_not_see_each_other(config):
    mixer = make(config)
    segment = jnp.broadcast_to(jnp.array([1] * 4 + [2] * 4 + [0] * 2), (B, T))
    together, _, _ = mix(mixer, X, context(Positions.packed(segment)))
    for begin, end in ((0, 4), (4, 8)):
        alone, _, _ = mix(mixer, X[:, begin:end], context(Positions.of(X[:, begin:end])))
        np.testing.assert_allclose(together[:, begin:end], alone, rtol=1e-5, atol=1e-5)
    assert jnp.isfinite(together).all(), "padding too"


@each
def test_state_of_earlier_tokens_stands_for_them(config):
    """Six tokens at once, then one by one, with room left in the state."""
    mixer, positions = make(config), Positions.packed(jnp.ones((B, T), jnp.int32))
    whole, _, _ = mix(mixer, X, context(positions))
    state, parts = mixer.init_state(B, T + 3, jnp.float32), []
    before = jax.tree.map(jnp.shape, state)
    for begin, end in ((0, 6), *((t, t + 1) for t in range(6, T))):
        y, state, _ = mix(mixer, X[:, begin:end], context(cut(positions, begin, end), jnp.int32(begin)), state)
        parts.append(y)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, rtol=1e-5, atol=1e-5)
    assert jax.tree.map(jnp.shape, state) == before


@each
def test_products_are_counted(config):
    """At least those of attention without its extras, and more for longer sequences."""
    short, long = (config.flops_per_token(dims(), length) for length in (10, 1000))
    assert 2 * WIDTH * 8 * (2 * 4 + 2 * 2) < short < long
