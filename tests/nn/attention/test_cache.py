import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.attention.cache import LayerCache
from jaxgpt.nn.position.base import Positions

B = 2


def tokens(begin, end):
    """Entries that say which token they are of, and where these stand: one row for the batch."""
    entries = {"a": jnp.broadcast_to(jnp.arange(begin, end, dtype=jnp.float32)[None, :, None], (B, end - begin, 3))}
    return entries, Positions.of(jnp.zeros((1, end - begin)), begin)


def empty(length, window=None):
    return LayerCache.empty({"a": ((3,), jnp.bfloat16)}, B, length, window)


def numbers(entries, where):
    """The tokens that are there, in order; padding left out."""
    there = np.asarray(where.segment[1]) > 0
    found = np.asarray(entries["a"], np.float32)[1, :, 0][there]
    np.testing.assert_array_equal(found, np.asarray(where.index[1])[there])
    return sorted(found.tolist())


def test_new_tokens_are_written_behind_the_old():
    cache = empty(5)
    cache, seen, where = cache.extend(jnp.int32(0), *tokens(0, 2))
    cache, seen, where = cache.extend(jnp.int32(2), *tokens(2, 4))
    np.testing.assert_array_equal(seen["a"][:, :, 0].astype(jnp.float32), [[0, 1, 2, 3, 0]] * B)
    np.testing.assert_array_equal(where.segment, [[1, 1, 1, 1, 0]] * B)
    assert seen["a"].dtype == jnp.bfloat16
    assert not cache.ring
    assert cache.size == 5


@pytest.mark.parametrize("window", [1, 3, 4])
@pytest.mark.parametrize("cuts", [[1] * 9, [2, 1, 1, 5], [7, 1, 1], [3, 3, 3], [9]], ids=str)
def test_a_ring_shows_every_new_token_its_window(window, cuts):
    cache, at = empty(20, window), 0
    assert cache.ring
    step = jax.jit(lambda cache, at, new: cache.extend(at, *new))
    for count in cuts:
        cache, seen, where = step(cache, jnp.int32(at), tokens(at, at + count))
        shown = numbers(seen, where)
        assert set(range(max(0, at - window + 1), at + count)) <= set(shown), (
            "what the first new token sees, and all new"
        )
        assert len(shown) == len(set(shown))
        at += count
        assert numbers(cache.entries, cache.where) == list(range(max(0, at - window), at))
        assert cache.size == window


def test_a_window_as_long_as_the_row_needs_no_ring():
    assert not empty(4, window=4).ring
    assert not empty(4, window=9).ring
    assert empty(4, window=9).size == 4


def test_where_a_token_stands():
    assert int(empty(9).place(jnp.int32(7))) == 7
    assert int(empty(9, window=4).place(jnp.int32(7))) == 3
