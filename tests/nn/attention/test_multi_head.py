import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerConfig, MixerContext
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import NopeConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.nn.position.rope_scaling import DynamicNtkConfig
from jaxgpt.nn.position.rotary import RopeConfig

B, T, WIDTH, HEADS, HEAD_DIM = 2, 10, 32, 4, 8
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, WIDTH)), jnp.float32)
POSITION_DIMS = PositionDims(width=WIDTH, head_dim=HEAD_DIM, num_heads=HEADS, train_length=6)


PLAIN = AttentionConfig()


@functools.cache
def make(config=PLAIN, kv_heads=HEADS, bias=False, dropout=0.0):
    """The module with numbers drawn by numpy, which need no compilation; biases and gains are off their start."""
    dims = LayerDims(WIDTH, HEADS, kv_heads, HEAD_DIM, bias, dropout, init_std=0.3, residual_std=0.3)

    def draw(path, leaf):
        noise = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode())).standard_normal(leaf.shape)
        return jnp.asarray(1 + 0.1 * noise if "norm" in jax.tree_util.keystr(path) else 0.3 * noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(lambda: config.make(dims, jax.random.key(1))))


def context(position=None, at=None, key=None, positions=None):
    encoding = PositionEncoding() if position is None else position.make(POSITION_DIMS, jax.random.key(0))
    return MixerContext(Positions.of(X) if positions is None else positions, encoding, Mask(), at, key)


@jax.jit
def run(module, context, state=None):
    return module(X, context, state)


def by_formula(module, x, kv_heads, bias_NTS=0.0):
    """Equation 1 of arXiv:1706.03762 in float64 numpy."""

    def project(weight, bias):
        shift = 0.0 if bias is None else np.asarray(bias[...], np.float64)
        return np.einsum("BTD,DNH->BTNH", x, np.asarray(weight[...], np.float64)) + shift

    x = np.asarray(x, np.float64)
    q = project(module.query, module.query_bias)
    k = np.repeat(project(module.key, module.key_bias), HEADS // kv_heads, axis=2)
    v = np.repeat(project(module.value, module.value_bias), HEADS // kv_heads, axis=2)
    scores = np.einsum("BTNH,BSNH->BNTS", q, k) / np.sqrt(HEAD_DIM) + bias_NTS
    scores = np.where(np.tril(np.ones((x.shape[1], x.shape[1]), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("BNTS,BSNH->BTNH", weights, v)
    out = np.einsum("BTNH,NHD->BTD", mixed, np.asarray(module.output[...], np.float64))
    return out + (0.0 if module.output_bias is None else np.asarray(module.output_bias[...], np.float64))


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_formula(kv_heads, bias):
    module = make(kv_heads=kv_heads, bias=bias)
    y, _, _ = run(module, context())
    np.testing.assert_allclose(y, by_formula(module, X, kv_heads), rtol=1e-4, atol=1e-4)


def test_bias_of_an_encoding_is_added_to_the_scores():
    module = make()
    distance = np.arange(T)[:, None] - np.arange(T)[None]
    slopes = 2.0 ** (-8 * np.arange(1, HEADS + 1) / HEADS)
    y, _, _ = run(module, context(AlibiConfig()))
    np.testing.assert_allclose(y, by_formula(module, X, HEADS, -slopes[:, None, None] * distance), rtol=1e-4, atol=1e-4)


def test_normed_queries_and_keys_ignore_the_size_of_their_weights():
    module = jax.tree.map(lambda p: p, make(AttentionConfig(qk_norm=True)))  # a copy
    y, _, _ = run(module, context())
    module.query[...] = 50 * module.query[...]
    np.testing.assert_allclose(run(module, context())[0], y, rtol=1e-3, atol=1e-4)
    assert make().query_norm is None


def test_implementations_agree():
    plain, _, _ = run(make(kv_heads=2), context(RopeConfig()))
    for name in ("naive", "dense", "blockwise"):
        y, _, _ = run(make(AttentionConfig(implementation=name), kv_heads=2), context(RopeConfig()))
        np.testing.assert_allclose(y, plain, rtol=1e-5, atol=1e-5)


def test_dropout_of_weights_needs_a_key():
    module, still = make(dropout=0.5), make()
    np.testing.assert_array_equal(run(module, context())[0], run(still, context())[0])
    one, again, other = (run(module, context(key=jax.random.key(seed)))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_state_keeps_rotated_keys_unless_the_rotation_depends_on_the_length():
    module, here = make(), Positions.packed(jnp.ones((B, T), jnp.int32))

    def cached(position):
        state = module.init_state(B, T, jnp.float32)
        return run(module, context(position, jnp.int32(0), positions=here), state)[1].entries["keys"]

    unrotated = cached(NopeConfig())
    assert not np.allclose(cached(RopeConfig()), unrotated, atol=1e-2)
    np.testing.assert_allclose(cached(RopeConfig(scaling=DynamicNtkConfig())), unrotated, rtol=1e-6)


def test_state_has_the_type_asked_for():
    state = make(kv_heads=1).init_state(3, 5, jnp.bfloat16)
    keys = state.entries["keys"]
    assert (keys.shape, keys.dtype) == ((3, 5, 1, HEAD_DIM), jnp.bfloat16)
    assert state.entries["values"].shape == keys.shape
    assert not state.where.segment.any(), "empty places are padding"


def test_unknown_implementation_is_named():
    with pytest.raises(
        ConfigError, match=r"mixer.implementation: 'flash' is not possible.*blockwise, dense, fused, naive"
    ):
        decode(MixerConfig, {"type": "attention", "implementation": "flash"}, "mixer")
