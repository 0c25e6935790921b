"""What every feed-forward layer must hold to; kinds are found by name."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import nnx
from jax.extend.core import jaxprs_in_params

from jaxgpt import registry
from jaxgpt.config import decode, encode, write_yaml
from jaxgpt.errors import ConfigError
from jaxgpt.nn.activation import ACTIVATIONS
from jaxgpt.nn.feedforward.base import FeedForwardConfig, hidden_width
from jaxgpt.nn.mixer.base import LayerDims

KINDS = registry.kinds(FeedForwardConfig)
SINGLE = [kind for kind in KINDS if kind != "moe"]  # a mixture is made of these; more in test_moe.py
WIDTH, TOKENS = 32, 12
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, TOKENS // 2, WIDTH)), jnp.float32)

each = pytest.mark.parametrize("kind", KINDS)
single = pytest.mark.parametrize("kind", SINGLE)


def dims(bias=True):
    return LayerDims(
        width=WIDTH, num_heads=2, num_kv_heads=2, head_dim=16, bias=bias, dropout=0.0, init_std=0.2, residual_std=0.1
    )


@functools.cache
def make(config, bias=True, seed=0):
    return jax.jit(lambda: config.make(dims(bias), jax.random.key(seed)))()


@jax.jit
def run(layer, x):
    return layer(x)


def product_flops(function, *arguments):
    """Multiply-adds times two of all matrix products that a function traces to: an independent count."""

    def count(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                contracted = equation.params["dimension_numbers"][0][0]
                shape = equation.invars[0].aval.shape
                total += 2 * equation.outvars[0].aval.size * int(np.prod([shape[axis] for axis in contracted]))
            for inner in jaxprs_in_params(equation.params):
                total += count(inner)
        return total

    return count(jax.make_jaxpr(function)(*arguments).jaxpr)


@each
def test_docstring_names_the_paper(kind):
    assert re.search(r"arXiv:\d{4}\.\d{5}", KINDS[kind].__doc__)


@each
def test_config_survives_yaml(kind):
    config = KINDS[kind]()
    assert decode(FeedForwardConfig, yaml.safe_load(write_yaml(encode(config)))) == config


@each
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_shape_and_type_stay(kind, dtype):
    y, aux = run(make(KINDS[kind]()), X.astype(dtype))
    assert (y.shape, y.dtype) == (X.shape, dtype)
    assert isinstance(aux, dict)


@each
def test_tokens_are_treated_one_by_one(kind):
    layer = make(KINDS[kind]())
    whole, single = run(layer, X)[0], run(layer, X[:1, 3:4])[0]
    np.testing.assert_allclose(single, whole[:1, 3:4], rtol=1e-5, atol=1e-5)


@each
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_finite_and_reach_every_parameter(kind, bias):
    gradient = jax.jit(jax.grad(lambda layer: (layer(X)[0] ** 2).sum()))(make(KINDS[kind](), bias))
    found = nnx.to_flat_state(nnx.state(gradient, nnx.Param))
    assert found
    assert any("bias" in str(path) for path, _ in found) == bias
    for path, leaf in found:
        assert jnp.isfinite(leaf[...]).all(), path
        assert jnp.any(leaf[...] != 0), path


@each
def test_parameters_are_float32_named_and_drawn_from_the_key(kind):
    one, same, other = (nnx.to_flat_state(nnx.state(make(KINDS[kind](), seed=s), nnx.Param)) for s in (0, 0, 1))
    for (path, a), (_, b), (_, c) in zip(one, same, other, strict=True):
        assert a[...].dtype == jnp.float32
        assert len(a.get_metadata()["axes"]) == a[...].ndim
        np.testing.assert_array_equal(a[...], b[...])
        if a.get_metadata()["decay"]:
            assert not np.allclose(a[...], c[...]), path
        else:
            np.testing.assert_array_equal(a[...], np.zeros(a[...].shape), err_msg=f"{path}: biases start at 0")


@each
def test_what_writes_to_the_residual_stream_starts_smaller(kind):
    """It is the map that ends in the model's width."""
    layer = make(KINDS[kind]().with_hidden(512))
    for path, leaf in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
        if leaf.get_metadata()["decay"]:
            wanted = dims().residual_std if leaf.get_metadata()["axes"][-1] == "embed" else dims().init_std
            assert abs(float(leaf[...].std()) / wanted - 1) < max(0.05, 1 / leaf.size**0.5), path


@single
@pytest.mark.parametrize("hidden", [None, 24])
def test_flops_are_what_its_products_cost(kind, hidden):
    config = KINDS[kind](hidden=hidden)
    assert config.flops_per_token(WIDTH) * TOKENS == product_flops(make(config), X)


@each
def test_parameters_and_flops_are_linear_in_the_hidden_width(kind):
    """What makes models equally large relies on it."""
    configs = [KINDS[kind]().with_hidden(hidden) for hidden in (1, 2, 3, 40)]
    for sizes in (
        [config.flops_per_token(WIDTH) for config in configs],
        [sum(leaf.size for leaf in jax.tree.leaves(nnx.state(make(config), nnx.Param))) for config in configs],
    ):
        unit = sizes[1] - sizes[0]
        assert unit > 0
        assert sizes == [sizes[0] + unit * more for more in (0, 1, 2, 39)]


@single
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": 0}, "feedforward: hidden must be at least 1, got 0"),
        ({"multiplier": 0}, "feedforward: multiplier must be positive, got 0"),
        ({"activation": "gelu"}, "feedforward.activation: 'gelu' is not possible.*gelu_tanh"),
    ],
)
def test_mistakes_are_named(kind, wrong, message):
    with pytest.raises(ConfigError, match=message):
        decode(FeedForwardConfig, {"type": kind, **wrong}, "feedforward")


# ---------------------------------------------------------------------------------------------------------- by formula


def raw(parameter):
    return np.asarray(parameter[...], np.float64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_is_its_equation(activation):
    layer = jax.tree.map(lambda p: p, make(KINDS["dense"]()))  # a copy
    layer.activation = activation
    layer = jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, layer)
    hidden = np.asarray(X, np.float64) @ raw(layer.up) + raw(layer.up_bias)
    hidden = np.asarray(ACTIVATIONS[activation](jnp.asarray(hidden, jnp.float32)), np.float64)
    np.testing.assert_allclose(run(layer, X)[0], hidden @ raw(layer.down) + raw(layer.down_bias), rtol=1e-4, atol=1e-4)


def test_gated_is_its_equation():
    layer = make(KINDS["gated"]())
    layer = jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, layer)
    x = np.asarray(X, np.float64)
    gate = x @ raw(layer.gate) + raw(layer.gate_bias)
    hidden = gate / (1 + np.exp(-gate)) * (x @ raw(layer.up) + raw(layer.up_bias))
    np.testing.assert_allclose(run(layer, X)[0], hidden @ raw(layer.down) + raw(layer.down_bias), rtol=1e-4, atol=1e-4)


def test_gated_width_is_rounded_up():
    """8/3 of 32 is 85.3: 88 in eights, 128 in 64s."""
    assert make(KINDS["gated"]()).up.shape == (32, 88)
    assert make(KINDS["gated"](multiple_of=64)).up.shape == (32, 128)
    assert make(KINDS["gated"](hidden=5, multiple_of=64)).up.shape == (32, 5), "given is given"
    with pytest.raises(ConfigError, match="multiple_of must be at least 1"):
        decode(FeedForwardConfig, {"type": "gated", "multiple_of": 0}, "feedforward")


@pytest.mark.parametrize(("given", "wanted"), [(None, 512), (100, 100)])
def test_hidden_width(given, wanted):
    assert hidden_width(given, 4.0, 128, 1) == wanted


def test_a_kind_that_lacks_a_method_says_so():
    with pytest.raises(TypeError, match=r"FeedForwardConfig must define make\(\)"):
        FeedForwardConfig().make(dims(), jax.random.key(0))
    with pytest.raises(TypeError, match=r"FeedForwardConfig must define flops_per_token\(\)"):
        FeedForwardConfig().flops_per_token(WIDTH)
