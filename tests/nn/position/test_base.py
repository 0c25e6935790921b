from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import NopeConfig, PositionConfig, PositionDims, PositionEncoding, Positions

DIMS = PositionDims(width=8, head_dim=4, num_heads=2, train_length=16)


def test_one_document_per_row_takes_one_row():
    positions = Positions.of(jnp.zeros((3, 4), jnp.int32))
    np.testing.assert_array_equal(positions.position, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(positions.index, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(positions.segment, [[1, 1, 1, 1]])


def test_packed_positions_restart_with_each_document():
    positions = Positions.packed(jnp.array([[1, 1, 2, 2, 2, 0], [0, 3, 3, 3, 3, 4]]))
    np.testing.assert_array_equal(positions.position, [[0, 1, 0, 1, 2, 0], [0, 0, 1, 2, 3, 0]])
    np.testing.assert_array_equal(positions.index, [[0, 1, 2, 3, 4, 5]] * 2)


def test_empty_positions_belong_to_no_document():
    assert jax.tree.map(lambda a: (a.shape, int(a.max())), Positions.empty(2, 3)) == Positions(*[((2, 3), 0)] * 3)


def test_lengths_are_of_the_own_document():
    packed = Positions.packed(jnp.array([[1, 1, 2, 2, 2, 0], [7, 7, 7, 7, 9, 9]]))
    np.testing.assert_array_equal(packed.lengths(), [[2, 2, 3, 3, 3, 1], [4, 4, 4, 4, 2, 2]])


def test_lengths_of_a_ring_buffer_and_of_its_newest_token_agree():
    keys = Positions(jnp.array([[8, 9, 5, 6, 7]]), jnp.array([[8, 9, 5, 6, 7]]), jnp.array([[4, 4, 4, 4, 4]]))
    newest = jax.tree.map(lambda a: a[:, 1:2], keys)
    assert jnp.all(keys.lengths() == 10)
    assert jnp.all(newest.lengths() == 10)


def test_lengths_of_a_left_padded_row():
    positions = Positions.packed(jnp.array([[0, 0, 0, 1, 1]]))
    np.testing.assert_array_equal(positions.lengths()[0, 3:], [2, 2])


def test_nope_changes_nothing():
    encoding = NopeConfig().make(DIMS, jax.random.key(0))
    x = jnp.arange(32.0).reshape(1, 4, 2, 4)
    positions = Positions.of(x[..., 0, 0])
    assert encoding.assign(positions, 3, None) is positions
    assert encoding.embed(x, positions) is encoding.queries(x, positions) is encoding.keys(x, positions) is x
    assert not encoding.has_bias
    assert jax.tree.leaves(encoding) == []


def test_queries_without_positions_grow_by_the_formula_of_llama4():
    """1 + 0.1 ln(floor((i + 1) / 8192) + 1): 1 up to position 8190, then 1 + 0.1 ln 2, ..."""
    encoding = NopeConfig(query_temperature=0.1).make(DIMS, jax.random.key(0))
    where = jnp.array([[0, 8190, 8191, 16382, 16383, 81919]])
    q = 2 * jnp.ones((1, 6, 2, 4), jnp.bfloat16)
    found = encoding.queries(q.astype(jnp.float32), Positions(where, where, where))[0, :, 0, 0]
    np.testing.assert_allclose(found / 2, 1 + 0.1 * np.log([1, 1, 2, 2, 3, 11]), rtol=1e-6)
    assert encoding.queries(q, Positions(where, where, where)).dtype == jnp.bfloat16
    assert encoding.keys(q, Positions(where, where, where)) is q
    assert not encoding.shift_invariant


@pytest.mark.parametrize(("field", "value"), [("query_temperature", -0.1), ("temperature_floor", 0)])
def test_impossible_temperatures(field, value):
    with pytest.raises(ConfigError, match=f"position: {field}: {value} must be at least"):
        decode(PositionConfig, {"type": "nope", field: value}, "position")


def test_a_limit_is_refused_with_the_lengths_and_a_way_out():
    class Limited(PositionEncoding):
        max_length = 16

    Limited().check_range(16)
    with pytest.raises(ConfigError, match=r"limited has values for 16 positions, and 17 are needed; .* rope"):
        Limited().check_range(17)
    PositionEncoding().check_range(10**9)


def test_a_config_without_a_module_says_so():
    with pytest.raises(TypeError, match="PositionConfig must define make"):
        PositionConfig().make(DIMS, jax.random.key(0))
