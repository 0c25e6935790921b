from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.sandwich import SandwichConfig


def at(*position: int) -> Positions:
    array = jnp.array([position])
    return Positions(array, array, jnp.ones_like(array))


def make(heads=4, **fields):
    return SandwichConfig(**fields).make(PositionDims(8, 4, heads, 16), jax.random.key(0))


def test_golden_values():
    """Width 2 has the one frequency 10000^(-1); width 4 has 10000^(-1/2) and 10000^(-1). Heads divide by 8h/N."""
    bias = make(2, width=2).bias(at(5000), at(0))[0, :, 0, 0]
    np.testing.assert_allclose(bias, (math.cos(0.5) - 1) / np.array([4, 8]), rtol=1e-5)
    bias = make(8, width=4).bias(at(100), at(0))[0, :, 0, 0]
    np.testing.assert_allclose(bias, (math.cos(1) + math.cos(0.01) - 2) / np.arange(1, 9), rtol=1e-5)


def test_against_float64(compare):
    found, wanted = compare(SandwichConfig(), [5, 90, 1000], [0, 3, 90, 127])
    np.testing.assert_allclose(found, wanted, atol=5e-5)


def test_neighbours_are_told_apart_a_million_tokens_in():
    """Angles counted from position 0 would be off by 0.06 radians each."""
    here, there = at(*range(8)), at(*range(10**6, 10**6 + 8))
    np.testing.assert_array_equal(make().bias(there, there), make().bias(here, here))


def test_falls_with_distance_and_more_gently_in_later_heads():
    bias = np.asarray(make().bias(at(200), at(*range(200, 150, -1))))[0, :, 0]
    assert np.all(np.abs(bias[:, 0]) < 1e-4)
    assert np.all(bias[:, 1:8] < bias[:, :7])
    np.testing.assert_allclose(bias[0, 1:], 4 * bias[3, 1:], rtol=1e-5)


def test_odd_width_is_refused():
    with pytest.raises(ConfigError, match="position: width: 7 must be even"):
        decode(PositionConfig, {"type": "sandwich", "width": 7}, "position")
