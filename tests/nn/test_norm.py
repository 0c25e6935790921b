import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt import registry
from jaxgpt.config import decode, encode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.norm import LayerNormConfig, Norm, NormConfig, RMSNormConfig

WIDTH = 16
KINDS = registry.kinds(NormConfig)
each = pytest.mark.parametrize("kind", KINDS)


def draw(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(3 * np.random.default_rng(seed).standard_normal(shape) + 1, dtype)


def make(kind, bias=True, heads=None, **fields):
    """The norm, its parameters moved off their start."""
    norm = KINDS[kind](**fields).make(WIDTH, bias, heads)
    return jax.tree.map(lambda p: p + jnp.broadcast_to(jnp.linspace(0.1, 0.5, p.shape[-1]), p.shape), norm)


@jax.jit
def run(norm, x):
    return norm(x)


@each
def test_docstring_names_the_paper(kind):
    assert re.search(r"arXiv:\d{4}\.\d{5}", KINDS[kind].__doc__)


@each
def test_config_survives_encoding(kind):
    config = KINDS[kind](epsilon=1e-4)
    assert encode(config).items() >= {"type": kind, "epsilon": 1e-4}.items()
    assert decode(NormConfig, encode(config)) == config


@each
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(WIDTH,), (3, WIDTH), (2, 3, 4, WIDTH)])
def test_shape_and_type_stay(kind, dtype, shape):
    y = run(make(kind), draw(0, *shape, dtype=dtype))
    assert (y.shape, y.dtype) == (shape, dtype)


@each
def test_every_token_has_unit_size_at_the_start(kind):
    y = run(KINDS[kind]().make(WIDTH, bias=True), draw(0, 5, WIDTH))
    np.testing.assert_allclose((np.asarray(y) ** 2).mean(-1), 1.0, rtol=1e-3)


@each
def test_size_of_the_input_does_not_matter(kind):
    norm, x = make(kind), draw(0, 5, WIDTH)
    np.testing.assert_allclose(run(norm, 100 * x), run(norm, x), rtol=1e-3, atol=1e-3)


@each
def test_gradients_are_finite_and_reach_every_parameter(kind):
    x = draw(0, 5, WIDTH).at[0].set(0.0)  # a token of nothing, too
    of_norm, of_x = jax.jit(jax.grad(lambda norm, x: (norm(x) ** 3).sum(), argnums=(0, 1)))(make(kind), x)
    assert jnp.isfinite(of_x).all()
    leaves = jax.tree.leaves(of_norm)
    assert leaves
    assert all(jnp.isfinite(leaf).all() and jnp.any(leaf != 0) for leaf in leaves)


@each
def test_statistics_are_float32(kind):
    """Squares of 300 and their mean overflow float16; in bfloat16 the mean of 4096 numbers would be far off."""
    x = jnp.where(jnp.arange(4096) % 2 == 0, 300.0, -300.0).astype(jnp.float16)
    y = run(KINDS[kind]().make(4096, bias=False), x)
    np.testing.assert_allclose(np.abs(np.asarray(y, np.float32)), 1.0, rtol=1e-2)


@each
def test_epsilon_must_be_positive(kind):
    with pytest.raises(ConfigError, match="norm: epsilon must be positive, got 0"):
        decode(NormConfig, {"type": kind, "epsilon": 0}, "norm")


def test_layer_norm_is_its_equation():
    norm, x = make("layernorm"), draw(0, 5, WIDTH)
    x64 = np.asarray(x, np.float64)
    wanted = (x64 - x64.mean(-1, keepdims=True)) / np.sqrt(x64.var(-1, keepdims=True) + LayerNormConfig().epsilon)
    np.testing.assert_allclose(
        run(norm, x), wanted * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...]), rtol=1e-4
    )


def test_layer_norm_has_a_bias_only_where_asked():
    assert LayerNormConfig().make(WIDTH, bias=False).bias is None
    assert len(jax.tree.leaves(LayerNormConfig().make(WIDTH, bias=True))) == 2


def test_rms_norm_is_its_equation():
    norm, x = make("rmsnorm"), draw(0, 5, WIDTH)
    x64 = np.asarray(x, np.float64)
    wanted = x64 / np.sqrt((x64**2).mean(-1, keepdims=True) + RMSNormConfig().epsilon)
    np.testing.assert_allclose(run(norm, x), wanted * np.asarray(norm.scale[...]), rtol=1e-4)
    assert len(jax.tree.leaves(RMSNormConfig().make(WIDTH, bias=True))) == 1


def test_a_kind_that_lacks_a_method_says_so():
    with pytest.raises(TypeError, match=r"NormConfig must define make\(\)"):
        NormConfig().make(WIDTH, bias=True)
    with pytest.raises(AssertionError, match="every norm defines normalised"):
        Norm(1e-5, "none", False, (2,))(jnp.ones(2))


@each
def test_gains(kind):
    """Of 1 + w from w = 0 on, or none at all: both start as the plain norm."""
    x, plain = draw(0, 5, WIDTH), KINDS[kind]().make(WIDTH, bias=False)
    for gain, leaves in (("one_plus", 1), ("none", 0)):
        norm = KINDS[kind](gain=gain).make(WIDTH, bias=False)
        assert len(jax.tree.leaves(norm)) == leaves
        np.testing.assert_array_equal(run(norm, x), run(plain, x))
    moved = make(kind, bias=False, gain="one_plus")
    gain = 1 + np.asarray(moved.scale[...])
    np.testing.assert_allclose(run(moved, x), np.asarray(run(plain, x)) * gain, rtol=1e-5, atol=1e-6)


@each
def test_a_gain_for_each_head(kind):
    x, norm = draw(0, 5, 3, WIDTH), make(kind, heads=3)
    assert norm.scale.shape == (3, WIDTH)
    norm.scale[...] = norm.scale[...] * jnp.array([1.0, 2.0, 0.0])[:, None]
    alone = make(kind)
    wanted = np.asarray(run(alone, x))
    shift = 0 if alone.bias is None else np.asarray(alone.bias[...])
    np.testing.assert_allclose(
        run(norm, x), (wanted - shift) * np.array([1, 2, 0])[:, None] + shift, rtol=1e-4, atol=1e-5
    )


def test_a_layer_norm_may_decide_on_its_bias_itself():
    assert LayerNormConfig(bias=False).make(WIDTH, bias=True).bias is None
    assert LayerNormConfig(bias=True).make(WIDTH, bias=False).bias is not None
