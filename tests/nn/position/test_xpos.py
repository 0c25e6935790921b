from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.position.xpos import XposConfig

DIMS = PositionDims(width=64, head_dim=16, num_heads=4, train_length=1024)


def at(*position: int) -> Positions:
    array = jnp.array([position])
    return Positions(array, array, jnp.ones_like(array))


def make(dims=DIMS, **fields):
    return XposConfig(**fields).make(dims, jax.random.key(0))


def test_golden_values():
    """A head of one pair has zeta = 0.4 / 1.4 = 2/7; pair p of 8 has (2p + 6.4) / 22.4."""
    one_pair = make(PositionDims(8, 2, 4, 1024), center=0)
    log_factors = one_pair.log_factors(at(0, 512, 1024))[0, :, 0]
    np.testing.assert_allclose(log_factors, [0, math.log(2 / 7), 2 * math.log(2 / 7)], rtol=1e-6)
    zeta = np.exp(make(center=0).log_factors(at(512))[0, 0])
    np.testing.assert_allclose(zeta, (2 * np.arange(8) + 6.4) / 22.4, rtol=1e-6)


def test_keys_are_multiplied_by_the_inverse():
    x = jnp.ones((1, 1, 1, 16))
    rope = RopeConfig().make(DIMS, jax.random.key(0)).queries(x, at(300))
    q, k = make().queries(x, at(300)), make().keys(x, at(300))
    np.testing.assert_allclose(q * k, rope**2, rtol=1e-5)
    assert not np.allclose(q, k, rtol=0.1)


@pytest.mark.parametrize("fields", [{}, {"layout": "interleaved", "fraction": 0.5, "scale_base": 64.0}, {"center": 0}])
def test_against_float64(fields, compare):
    found, wanted = compare(XposConfig(**fields), [127, 200, 500], [0, 3, 90, 127])
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_centre_changes_no_score(compare):
    far, _ = compare(XposConfig(center=-2000), [127, 500], [0, 127])
    near, _ = compare(XposConfig(center=60), [127, 500], [0, 127])
    np.testing.assert_allclose(far, near, rtol=1e-4, atol=1e-5)


def test_exact_up_to_the_documented_distance(compare):
    """The fastest pair stops fading 512 * 35 / ln(7/2) = 14,304 tokens from the centre."""
    fading = make(center=0).log_factors(at(14_300, 14_310, 20_000))[0, :, 0]
    assert fading[0] > -35
    np.testing.assert_array_equal(fading[1:], [-35, -35])
    found, wanted = compare(XposConfig(center=0), [14_304], [14_304 - 2000, 14_000, 14_303])
    np.testing.assert_allclose(found, wanted, atol=3e-3)


def test_nothing_overflows():
    """Forward and backward, with queries before keys as well, which a mask hides only after they are multiplied."""
    encoding, x = make(), 1e3 * jnp.ones((1, 3, 1, 16))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(x, where):
        scores = jnp.einsum("BTNH,BSNH->BNTS", encoding.queries(x, where), encoding.keys(x, where))
        return jnp.where(jnp.tril(jnp.ones((1, 1, 3, 3), bool)), scores, -1e30).sum(), scores

    for position in (64 * 1024, 10**6, 10**9):
        (_, scores), gradient = total(x, at(0, position // 2, position))
        assert jnp.isfinite(scores).all(), position
        assert jnp.isfinite(gradient).all(), position


def test_impossible_fields():
    with pytest.raises(ConfigError, match=r"position: scale_base: 0.0 must be greater than 0"):
        decode(PositionConfig, {"type": "xpos", "scale_base": 0.0}, "position")
    with pytest.raises(ConfigError, match=r"position: theta: 1.0 must be greater"):
        decode(PositionConfig, {"type": "xpos", "theta": 1.0}, "position")
