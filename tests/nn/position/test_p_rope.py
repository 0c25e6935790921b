from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.p_rope import PRopeConfig
from jaxgpt.nn.position.rope_scaling import YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig

DIMS = PositionDims(width=64, head_dim=16, num_heads=4, train_length=128)
X = jnp.asarray(np.random.default_rng(0).standard_normal((1, 40, 4, 16)), jnp.float32)
HERE = Positions.of(X[..., 0, 0])


def make(config):
    return config.make(DIMS, jax.random.key(0))


def test_golden_frequencies():
    """p = 0.25 of 8 pairs: 2 turn, at 1 and 10000^(-1/8) radians per token."""
    np.testing.assert_allclose(
        make(PRopeConfig(p=0.25)).spectrum.frequencies(), [1, 0.31622776601683794] + [0] * 6, rtol=1e-15
    )


@pytest.mark.parametrize(("p", "turning"), [(0.0, 0), (0.1, 0), (0.25, 2), (0.7, 5), (0.75, 6), (1.0, 8)])
def test_number_of_turning_pairs(p, turning):
    """int(p * d // 2)."""
    assert np.count_nonzero(make(PRopeConfig(p=p)).spectrum.frequencies()) == turning


@pytest.mark.parametrize("fields", [{}, {"layout": "interleaved"}, {"fraction": 0.5}, {"scaling": YarnConfig()}])
def test_p_of_one_is_rope_bit_for_bit(fields):
    mine, rope = make(PRopeConfig(p=1.0, **fields)), make(RopeConfig(**fields))
    np.testing.assert_array_equal(mine.queries(X, HERE), rope.queries(X, HERE))
    np.testing.assert_array_equal(mine.keys(X, HERE), rope.keys(X, HERE))


def test_p_of_zero_is_nope_bit_for_bit():
    np.testing.assert_array_equal(make(PRopeConfig(p=0.0)).queries(X, HERE), X)


def test_is_not_partial_rotary():
    """The pairs that turn have the same frequencies as in rope, whatever p is."""
    rope, half = make(RopeConfig()).queries(X, HERE), make(PRopeConfig(p=0.5)).queries(X, HERE)
    np.testing.assert_array_equal(half[..., :4], rope[..., :4])
    np.testing.assert_array_equal(half[..., 4:8], X[..., 4:8])
    assert not np.allclose(make(RopeConfig(fraction=0.5)).queries(X, HERE), half, atol=0.1)


@pytest.mark.parametrize("fields", [{}, {"p": 0.3, "layout": "interleaved"}, {"p": 0.5, "fraction": 0.5}])
def test_against_float64(fields, compare):
    found, wanted = compare(PRopeConfig(**fields), [5, 90, 1000], [0, 3, 90, 127])
    np.testing.assert_allclose(found, wanted, atol=5e-4)


def test_scaling_keeps_still_pairs_still():
    scaled = make(PRopeConfig(p=0.5, scaling=YarnConfig()))
    assert np.count_nonzero(scaled.tables(HERE)[1][0, 1]) == 4


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_impossible_p(p):
    with pytest.raises(ConfigError, match=f"position: p: {p} must be between 0 and 1"):
        decode(PositionConfig, {"type": "p_rope", "p": p}, "position")
