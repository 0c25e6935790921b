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
from jaxgpt.nn.position.t5 import T5Config, buckets

DIMS = PositionDims(width=8, head_dim=4, num_heads=3, train_length=256)


def at(position) -> Positions:
    array = jnp.asarray(position)[None]
    return Positions(array, array, jnp.ones_like(array))


@functools.cache
def make(dims=DIMS, **fields):
    return T5Config(**fields).make(dims, jax.random.key(0))


def bucket_by_the_formula(ahead: int, num_buckets: int, max_distance: int, bidirectional: bool) -> int:
    """T5's relative_position_bucket, one number at a time; `ahead` is key minus query."""
    bucket = 0
    if bidirectional:
        num_buckets //= 2
        bucket = num_buckets if ahead > 0 else 0
        n = abs(ahead)
    else:
        n = max(-ahead, 0)
    exact = num_buckets // 2
    if n < exact:
        return bucket + n
    logarithmic = math.log(n / exact) / math.log(max_distance / exact) * (num_buckets - exact)
    return bucket + min(exact + int(logarithmic + 1e-9), num_buckets - 1)


def test_buckets_golden():
    """Causal, 32 buckets, 128: n below 16, then 16 + floor(16 ln(n/16) / ln 8), at most 31."""
    table = buckets(32, 128)
    assert table.shape == (129,)
    np.testing.assert_array_equal(table[:17], range(17))
    assert [int(table[n]) for n in (18, 19, 32, 64, 112, 113, 128)] == [16, 17, 21, 26, 30, 31, 31]
    assert np.all(np.diff(table) >= 0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (32, 64), (16, 20), (8, 1000)])
def test_buckets_by_the_formula(num_buckets, max_distance, bidirectional):
    encoding = make(num_buckets=num_buckets, max_distance=max_distance, bidirectional=bidirectional)
    found = encoding.bucket(at(np.arange(300)), at(np.arange(300)))[0]
    for i in (0, 1, 130, 299):
        expected = [bucket_by_the_formula(j - i, num_buckets, max_distance, bidirectional) for j in range(300)]
        np.testing.assert_array_equal(found[i], expected)


def test_everything_from_the_maximum_on_is_the_last_bucket():
    encoding = make(max_distance=64)
    far = encoding.bucket(at([10**6]), at([0, 10**6 - 65, 10**6 - 64, 10**6 - 15]))
    np.testing.assert_array_equal(far, [[[31, 31, 31, 15]]])


def test_bias_is_the_table_row_per_head():
    encoding = make(num_buckets=8, max_distance=20)
    bias = encoding.bias(at([5]), at([5, 4, 2, 0]))
    assert bias.shape == (1, 3, 1, 4)
    np.testing.assert_array_equal(bias[0, :, 0].T, encoding.table[...][jnp.array([0, 1, 3, 4])])
    assert encoding.table.axes == (None, "heads")


def test_gradient_of_the_table_counts_its_uses():
    positions = at(np.arange(4))
    gradient = jax.grad(lambda encoding: encoding.bias(positions, positions).sum())(make()).table[...]
    np.testing.assert_array_equal(gradient[:5], np.repeat([[10.0], [3], [2], [1], [0]], 3, axis=1))


def test_far_buckets_train_by_default():
    assert make().max_distance == 128
    assert make(PositionDims(8, 4, 3, train_length=128)).max_distance == 64
    assert set(buckets(32, 64)[np.arange(128).clip(max=64)]) == set(range(32))
    assert make(PositionDims(8, 4, 3, train_length=8)).max_distance == 17, "but never inside the exact buckets"


def test_direction_follows_the_model():
    assert not make().bidirectional
    assert make(PositionDims(8, 4, 3, 256, causal=False)).bidirectional
    assert not make(PositionDims(8, 4, 3, 256, causal=False), bidirectional=False).bidirectional


def test_impossible_fields():
    with pytest.raises(ConfigError, match=r"position\.max_distance: 16 must be greater than 16"):
        make(max_distance=16)
    with pytest.raises(ConfigError, match=r"position\.max_distance: 0 must be greater than 8"):
        T5Config(max_distance=0, bidirectional=True).check(DIMS)
    with pytest.raises(ConfigError, match="position: num_buckets: 30 must be a multiple of 4"):
        decode(PositionConfig, {"type": "t5", "num_buckets": 30}, "position")
