import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.attention.differential import DifferentialConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerContext
from jaxgpt.nn.position.base import PositionEncoding, Positions

B, T, D, N, H = 2, 7, 24, 4, 6
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, D)), jnp.float32)
START = 0.3


def dims(kv_heads=N):
    return LayerDims(D, N, kv_heads, H, bias=False, dropout=0.0, init_std=0.4, residual_std=0.4)


@functools.cache
def make(kv_heads=N):
    module = jax.jit(lambda: DifferentialConfig(lambda_start=START).make(dims(kv_heads), jax.random.key(0)))()
    return jax.tree.map(lambda p: p + 0.2 * np.random.default_rng(1).random(p.shape, np.float32), module)


@jax.jit
def run(module):
    return module(X, MixerContext(Positions.of(X), PositionEncoding(), Mask()), None)[0]


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_is_the_formula(kv_heads):
    """Equations 1 to 3, one pair of heads at a time, in numpy."""
    module = make(kv_heads)
    x = np.asarray(X, np.float64)
    q, k, v = (
        np.einsum("btd,dnh->btnh", x, np.asarray(w[...], np.float64)) for w in (module.query, module.key, module.value)
    )
    dots = [
        float(a[...] @ b[...])
        for a, b in ((module.lambda_query_1, module.lambda_key_1), (module.lambda_query_2, module.lambda_key_2))
    ]
    weight, groups = np.exp(dots[0]) - np.exp(dots[1]) + START, N // kv_heads
    heads = []

    def attend(n, kv):
        scores = np.einsum("bth,bsh->bts", q[:, :, n], k[:, :, kv]) / np.sqrt(H)
        scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)

    for pair in range(kv_heads // 2):
        values = np.concatenate([v[:, :, 2 * pair], v[:, :, 2 * pair + 1]], axis=-1)
        for g in range(groups):
            first, second = (attend((2 * pair + i) * groups + g, 2 * pair + i) for i in (0, 1))
            out = (first - weight * second) @ values
            out = out / np.sqrt((out**2).mean(-1, keepdims=True) + 1e-5) * np.asarray(module.pair_norm.scale[...])
            heads.append((1 - START) * out)
    together = np.concatenate(heads, axis=-1).reshape(B, T, N, H)
    wanted = np.einsum("btnh,nhd->btd", together, np.asarray(module.output[...], np.float64))
    np.testing.assert_allclose(run(module), wanted, rtol=1e-4, atol=1e-4)


def test_it_is_as_large_as_attention_but_for_its_few_vectors():
    count = [
        sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda c=c: c.make(dims(), jax.random.key(0)))))
        for c in (AttentionConfig(), DifferentialConfig())
    ]
    assert count[1] - count[0] == 4 * H + 2 * H
    assert DifferentialConfig().flops_per_token(dims(), 9) == AttentionConfig().flops_per_token(dims(), 9)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"lambda_start: 1.5"):
        DifferentialConfig(lambda_start=1.5)
    with pytest.raises(ValueError, match="takes heads in pairs, and 1 is odd"):
        DifferentialConfig().check(dataclasses.replace(dims(), num_kv_heads=1))
