"""Contextual positions against one number at a time in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.mixer.base import Mask
from jaxgpt.nn.position.base import Positions
from jaxgpt.ops.attention import Dropout, naive
from jaxgpt.ops.contextual import contextual_attention

T, N, K, H, P = 10, 4, 2, 8, 4
DRAW = np.random.default_rng(0).standard_normal
Q, U = (jnp.asarray(DRAW((2, T, N, H)), jnp.float32) for _ in range(2))
KEYS, VALUES = (jnp.asarray(DRAW((2, T, K, H)), jnp.float32) for _ in range(2))
TABLE = jnp.asarray(DRAW((P, H)), jnp.float32)
WHERE = Positions.packed(jnp.array([[1] * 6 + [2] * 4, [1] * 8 + [0] * 2]))


def run(q=Q, u=U, table=TABLE, window=None, block=128, **options):
    return contextual_attention(q, u, KEYS, VALUES, table, WHERE, WHERE, Mask(window), block=block, **options)


def by_formula(window=None) -> np.ndarray:
    """Equations 3 to 6, query by query."""
    q, u, k, v, table = (np.asarray(x, np.float64) for x in (Q, U, KEYS, VALUES, TABLE))
    visible = np.asarray(Mask(window)(WHERE, WHERE))
    out = np.zeros(q.shape)
    for b, i, n in np.ndindex(2, T, N):
        seen = np.flatnonzero(visible[b, i])
        logits = []
        for j in seen:
            z = [q[b, i, n] @ k[b, t, n // (N // K)] / np.sqrt(H) for t in seen if t >= j]
            p = min(sum(1 / (1 + np.exp(-value)) for value in z), P - 1)
            low = int(p)
            vector = table[low] * (1 - (p - low)) + table[min(low + 1, P - 1)] * (p - low)
            logits.append(z[0] + u[b, i, n] @ vector)
        weights = np.exp(logits - np.max(logits)) if len(seen) else np.zeros(0)
        out[b, i, n] = weights @ v[b, seen, n // (N // K)] / weights.sum() if len(seen) else 0
    return out


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("block", [128, 4])
def test_is_the_formula(window, block):
    found = run(window=window, block=block)
    shown = np.asarray(WHERE.segment > 0)
    np.testing.assert_allclose(np.asarray(found)[shown], by_formula(window)[shown], rtol=1e-4, atol=1e-5)
    assert jnp.isfinite(found).all(), "padding too"


def test_zero_vectors_are_plain_attention():
    plain = naive(Q, KEYS, VALUES, WHERE, WHERE, Mask())
    np.testing.assert_allclose(run(table=0 * TABLE), plain, rtol=1e-5, atol=1e-6)


def test_gradients_do_not_depend_on_the_block():
    def loss(arguments, block):
        return (run(*arguments, block=block) ** 2).sum()

    gradients = jax.jit(jax.grad(loss), static_argnums=1)
    whole, parts = (gradients((Q, U, TABLE), block) for block in (128, 4))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        assert jnp.abs(one).max() > 0


def test_dropout_zeroes_weights():
    dropped = run(dropout=Dropout(0.5, jax.random.key(0)))
    assert not np.allclose(dropped, run())
    np.testing.assert_array_equal(dropped, run(dropout=Dropout(0.5, jax.random.key(0))))
