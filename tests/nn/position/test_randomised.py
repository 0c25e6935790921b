from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode, override
from jaxgpt.errors import ConfigError, ContextTooLong
from jaxgpt.nn.position.absolute import LearnedConfig
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.randomised import RandomisedConfig
from jaxgpt.nn.position.rope_scaling import DynamicNtkConfig
from jaxgpt.nn.position.rotary import RopeConfig

DIMS = PositionDims(width=32, head_dim=8, num_heads=4, train_length=16)


def make(**fields):
    return RandomisedConfig(**fields).make(DIMS, jax.random.key(0))


def row(*lengths: int) -> Positions:
    return Positions.packed(jnp.asarray(np.repeat(np.arange(1, len(lengths) + 1), lengths))[None])


def test_training_draws_increasing_positions_without_replacement():
    encoding, here = make(), row(16)
    draws = [np.asarray(encoding.assign(here, 16, jax.random.key(seed)).position[0]) for seed in range(50)]
    for drawn in draws:
        assert np.all(np.diff(drawn) > 0)
        assert 0 <= drawn[0] <= drawn[-1] < 512
    assert len({tuple(drawn) for drawn in draws}) == 50
    # the p-th smallest of 16 from 512 lies at (p + 1) 513 / 17 - 1 on average
    np.testing.assert_allclose(np.mean(draws, axis=0), (np.arange(16) + 1) * 513 / 17 - 1, atol=45)
    np.testing.assert_array_equal(draws[0], encoding.assign(here, 16, jax.random.key(0)).position[0])


def test_whole_range_leaves_no_choice():
    """T positions out of T: the order is kept, so everything is."""
    here = row(16)
    np.testing.assert_array_equal(make(maximum=16).assign(here, 16, jax.random.key(1)).position, here.position)
    np.testing.assert_array_equal(make(maximum=16).assign(here, 16, None).position, here.position)


def test_only_positions_change():
    here = row(10, 6)
    there = make().assign(here, 16, jax.random.key(0))
    assert there.index is here.index
    assert there.segment is here.segment
    np.testing.assert_array_equal(there.position[0, 10:], there.position[0, :6], "documents restart")


def test_evaluation_draws_once_for_every_length():
    encoding, here = make(), row(90)
    table = np.asarray(encoding.assign(here, 90, None).position[0])
    assert np.all(np.diff(table) > 0)
    assert 400 < table[-1] < 512, "the whole range, whatever the length"
    newest = jax.tree.map(lambda a: a[:, 57:58], here)
    np.testing.assert_array_equal(encoding.assign(newest, 90, None).position, table[None, 57:58])
    again = RandomisedConfig().make(DIMS, jax.random.key(9))
    np.testing.assert_array_equal(again.assign(here, 90, None).position[0], table, "whatever the initial weights are")
    other = make(evaluation_seed=1).assign(here, 90, None).position[0]
    assert not np.array_equal(other, table)


def test_evaluation_of_short_rows_sees_the_gaps_of_training():
    encoding = make()
    whole = np.asarray(encoding.assign(row(16), 16, None).position[0])
    np.testing.assert_array_equal(encoding.assign(row(5), 5, None).position[0], whole[:5])
    assert np.diff(whole).mean() == pytest.approx(512 / 16, rel=0.3)
    longer = np.asarray(encoding.assign(row(64), 64, None).position[0])
    assert np.diff(longer).mean() == pytest.approx(512 / 64, rel=0.3)


def test_defaults():
    encoding = make()
    assert encoding.max_length == 512
    assert type(encoding.inner) is type(RopeConfig().make(DIMS, jax.random.key(0)))


def test_longer_sequences_are_refused():
    make().check_range(512)
    with pytest.raises(ContextTooLong, match=r"512 positions, and 513 are needed; .* position\.maximum"):
        make().check_range(513)


def test_inner_encoding_is_made_for_the_whole_range():
    learned = make(inner=LearnedConfig())
    assert learned.inner.num_positions == 512
    last = dataclasses.replace(row(16), position=jnp.full((1, 16), 511))
    x = jnp.zeros((1, 16, 32))
    np.testing.assert_array_equal(learned.embed(x, last)[0, 0], learned.inner.table[511])


def test_inner_encoding_does_the_work():
    alibi = make(inner=AlibiConfig())
    here = alibi.assign(row(16), 16, jax.random.key(0))
    assert alibi.has_bias
    np.testing.assert_array_equal(alibi.bias(here, here), alibi.inner.bias(here, here))
    assert not make().has_bias
    assert make(inner=RopeConfig(scaling=DynamicNtkConfig())).rotates_by_length


def test_inner_encoding_is_configured_below():
    config = decode(PositionConfig, override({"type": "randomised"}, [("inner.type", "alibi")]), "model.position")
    assert config == RandomisedConfig(inner=AlibiConfig())


def test_impossible_fields():
    with pytest.raises(ConfigError, match="position: inner: randomised positions cannot be randomised again"):
        decode(PositionConfig, {"type": "randomised", "inner": {"type": "randomised"}}, "position")
    with pytest.raises(ConfigError, match=r"position\.maximum: 16 positions, the training length, .* from 8"):
        make(maximum=8)
    with pytest.raises(ConfigError, match="position: maximum: 0 must be at least 1"):
        decode(PositionConfig, {"type": "randomised", "maximum": 0}, "position")
    with pytest.raises(ConfigError, match="head width of 1 has none"):
        RandomisedConfig().check(dataclasses.replace(DIMS, head_dim=1))
