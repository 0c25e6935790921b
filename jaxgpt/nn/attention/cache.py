"""What a layer of attention keeps of the tokens it has read: an argument and a result, never an attribute.

Shapes: B batch, S tokens there is room for.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.position.base import Positions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Entries of tokens and where these stand.

    A layer with a window keeps a ring: as many tokens as a query sees, each new one in the place of the oldest. Masks
    and encodings find all they need in `where`, so the order in memory is nobody's concern.
    """

    entries: Any  # a pytree of [B, S, ...]: keys and values, or what they are made of
    where: Positions
    ring: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def empty(cls, like: Any, batch: int, length: int, window: int | None) -> LayerCache:
        """Room for `length` tokens, or a ring of `window` if that is less; `like` is a pytree of pairs: the shape of a
        token's entry, and its type."""
        ring = window is not None and window < length
        size = window if ring and window is not None else length
        entries = jax.tree.map(
            lambda entry: jnp.zeros((batch, size, *entry[0]), entry[1]), like, is_leaf=lambda x: isinstance(x, tuple)
        )
        return cls(entries, Positions.empty(batch, size), ring)

    @property
    def size(self) -> int:
        return self.where.index.shape[1]

    def extend(self, at: Array, entries: Any, where: Positions) -> tuple[LayerCache, Any, Positions]:
        """The cache with new tokens, of which `at` is the first one's number in the row; and the entries and positions
        that these tokens may look at."""
        new = jax.tree.map(self._fitting, (self.entries, self.where), (entries, where))
        old = self.entries, self.where
        count = jax.tree.leaves(new)[0].shape[1]
        if not self.ring or count == 1:
            begin = self.place(at)
            put = jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, begin, axis=1), old, new)
            return LayerCache(put[0], put[1], self.ring), put[0], put[1]
        # The first of several new tokens still look at what the last ones will replace.
        seen = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), old, new)
        kept = min(count, self.size)
        places = (at + count - kept + jnp.arange(kept)) % self.size
        put = jax.tree.map(lambda a, b: a.at[:, places].set(b[:, count - kept :]), old, new)
        return LayerCache(put[0], put[1], self.ring), seen[0], seen[1]

    def until(self, number: Array) -> LayerCache:
        """The cache without the tokens from `number` on, as if they had never been read. Not for rings."""
        assert not self.ring
        there = jnp.arange(self.size)[None] < number
        where = dataclasses.replace(self.where, segment=jnp.where(there, self.where.segment, 0))
        return dataclasses.replace(self, where=where)

    def place(self, number: Array) -> Array:
        """Where the entry of a token stands, given its number in the row."""
        return number % self.size if self.ring else number

    @staticmethod
    def _fitting(old: Array, new: Array) -> Array:
        return jnp.broadcast_to(new, (old.shape[0], *new.shape[1:])).astype(old.dtype)
