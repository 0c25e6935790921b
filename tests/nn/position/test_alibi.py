from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.position.alibi import AlibiConfig, slopes
from jaxgpt.nn.position.base import PositionDims, Positions


def test_slopes_of_8_heads():
    assert slopes(8) == (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256)


def test_slopes_of_12_heads():
    between = [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    assert slopes(12) == pytest.approx([2.0**-h for h in range(1, 9)] + between, rel=1e-15)


@pytest.mark.parametrize(("heads", "expected"), [(1, [2**-8]), (2, [2**-4, 2**-8]), (3, [2**-4, 2**-8, 2**-2])])
def test_slopes_of_few_heads(heads, expected):
    assert slopes(heads) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("heads", [*range(1, 34), 40, 71])
def test_slopes_by_the_authors_recursion(heads):
    """get_slopes of the paper's repository, transcribed."""

    def power_of_two(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    def recursive(n):
        if math.log2(n).is_integer():
            return power_of_two(n)
        below = 2 ** math.floor(math.log2(n))
        return power_of_two(below) + recursive(2 * below)[0::2][: n - below]

    assert slopes(heads) == pytest.approx(recursive(heads), rel=1e-12)
    assert len(slopes(heads)) == heads


def test_bias_falls_with_distance():
    encoding = AlibiConfig().make(PositionDims(8, 4, 4, 16), jax.random.key(0))
    positions = Positions.of(jnp.zeros((5, 6)))
    bias = encoding.bias(positions, positions)
    assert bias.shape == (1, 4, 6, 6)
    assert bias.dtype == jnp.float32
    for head, slope in enumerate(slopes(4)):
        for i in range(6):
            for j in range(6):
                assert float(bias[0, head, i, j]) == -slope * abs(i - j)


def test_bias_is_exact_a_million_tokens_in():
    """The shorter form, slope * j, would round neighbours together."""
    encoding = AlibiConfig().make(PositionDims(8, 4, 8, 16), jax.random.key(0))
    here = Positions.of(jnp.zeros((1, 64)))
    there = dataclasses.replace(here, position=here.position + 10**6)
    np.testing.assert_array_equal(encoding.bias(there, there), encoding.bias(here, here))
