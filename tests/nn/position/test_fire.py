from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.fire import FireConfig

DIMS = PositionDims(width=8, head_dim=4, num_heads=2, train_length=10)


def at(*position: int) -> Positions:
    array = jnp.array([position])
    return Positions(array, array, jnp.ones_like(array))


@jax.jit
def bias(encoding, i, j):
    return encoding.bias(at(i), at(j))


def by_hand():
    """One hidden unit that passes the ratio on, two heads: -1 and -2 times it; c = 1."""
    encoding = FireConfig(hidden=1, c=1.0).make(DIMS, jax.random.key(0))
    encoding.first[...], encoding.first_bias[...] = jnp.ones(1), jnp.zeros(1)
    encoding.second[...] = jnp.array([[-1.0, -2.0]])
    return encoding


@pytest.mark.parametrize(
    ("i", "j", "expected"),
    [
        (3, 0, np.log(4) / np.log(11)),  # i below the threshold of 10: ln(3 + 1) / ln(10 + 1)
        (10, 10, 0.0),
        (99, 90, np.log(10) / np.log(100)),  # beyond it: ln(9 + 1) / ln(99 + 1) = 1/2
        (99, 0, 1.0),  # the furthest key is at 1 however long the context
        (10**6, 0, 1.0),
    ],
)
def test_golden_values(i, j, expected):
    np.testing.assert_allclose(bias(by_hand(), i, j)[0, :, 0, 0], [-expected, -2 * expected], rtol=2e-6, atol=1e-9)


def test_against_float64(compare):
    found, wanted = compare(FireConfig(), [0, 5, 90, 4000], [0, 3, 90, 127, 3999])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)


def test_starts_as_the_paper():
    encoding = FireConfig().make(DIMS, jax.random.key(0))
    assert float(encoding.c[...]) == pytest.approx(0.1)
    assert float(encoding.multiplier[...]) * encoding.train_length == DIMS.train_length
    assert encoding.first.shape == (32,)
    assert encoding.second.shape == (32, 2)
    assert encoding.second.get_metadata()["axes"] == (None, "heads")


def test_threshold_learns_from_queries_before_it_only():
    slope = jax.jit(jax.grad(lambda encoding, i: bias(encoding, i, 0).sum()))
    assert float(slope(by_hand(), 5).multiplier[...]) > 0  # a higher threshold makes the ratio smaller
    assert float(slope(by_hand(), 50).multiplier[...]) == 0


def test_stays_finite_when_c_and_the_threshold_are_zero():
    encoding = by_hand()
    encoding.c[...] = jnp.float32(0)
    assert jnp.isfinite(bias(encoding, 5, 1)).all()
    assert jnp.isfinite(bias(encoding, 0, 0)).all()


@pytest.mark.parametrize(("field", "value"), [("hidden", 0), ("c", 0.0)])
def test_impossible_fields(field, value):
    with pytest.raises(ConfigError, match=f"position: {field}: {value} must be"):
        decode(PositionConfig, {"type": "fire", field: value}, "position")
