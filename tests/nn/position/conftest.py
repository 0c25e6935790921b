"""An encoding beside its float64 formula (`experiments/oracles.py`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import oracles
from jaxgpt.nn.position.base import PositionDims, Positions

DIMS = PositionDims(width=64, head_dim=16, num_heads=4, train_length=128)


@jax.jit
def _scores(encoding, q, k, i, j):
    q_at, k_at = (Positions(where, where, jnp.ones_like(where)) for where in (i, j))
    scores = jnp.einsum("BTNH,BSNH->BNTS", encoding.queries(q, q_at), encoding.keys(k, k_at)) * q.shape[-1] ** -0.5
    return scores + encoding.bias(q_at, k_at) if encoding.has_bias else scores


@pytest.fixture
def compare():
    """compare(config, queries at, keys at) -> float32 and float64 [N, T, S] of its scores; random queries and keys."""

    def run(config, i, j, dims=DIMS):
        i, j = np.asarray(i), np.asarray(j)
        encoding = config.make(dims, jax.random.key(0))
        draw = np.random.default_rng(0).standard_normal
        q, k = (draw((1, len(where), dims.num_heads, dims.head_dim)).astype(np.float32) for where in (i, j))
        found = _scores(encoding, jnp.asarray(q), jnp.asarray(k), i[None], j[None])[0]
        wanted = oracles.scores(
            config, dims, oracles.parameters_of(encoding), q[0].astype(np.float64), k[0].astype(np.float64), i, j
        )
        return np.asarray(found), wanted

    return run
