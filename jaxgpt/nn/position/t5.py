"""T5's relative position buckets.

Shapes: B batch, T query tokens, S key tokens, N heads.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.nn.params import normal
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.registry import register


@register("t5")
@dataclasses.dataclass(frozen=True)
class T5Config(PositionConfig):
    """A learned number per head and bucket of distances, added to the scores (Raffel et al. 2019, arXiv:1910.10683).

    Near distances have a bucket each, far ones share buckets whose width grows as the logarithm, and everything from
    `max_distance` on falls into the last. One table serves all layers.

    num_buckets: rows of the table.
    max_distance: tokens from which on the bucket is the last. By default 128 or half the training length, whichever is
        less: the far buckets would otherwise never train.
    bidirectional: half the buckets for keys after the query. By default where the model is not causal; in a decoder
        that half would never train.
    init_std: standard deviation of the table at the start.
    """

    num_buckets: int = 32
    max_distance: int | None = None
    bidirectional: bool | None = None
    init_std: float = 0.02

    def __post_init__(self) -> None:
        if self.num_buckets < 4 or self.num_buckets % 4:
            raise ValueError(f"num_buckets: {self.num_buckets} must be a multiple of 4")

    def check(self, dims: PositionDims) -> None:
        exact = self._exact(dims)
        if self.max_distance is not None and self.max_distance <= exact:
            raise ConfigError(
                f"position.max_distance: {self.max_distance} must be greater than {exact}, the distances that have "
                f"a bucket each; raise it or lower position.num_buckets"
            )

    def make(self, dims: PositionDims, key: Array) -> T5:
        self.check(dims)
        max_distance = self.max_distance or max(min(128, dims.train_length // 2), self._exact(dims) + 1)
        return T5(self, max_distance, self._both_ways(dims), dims.num_heads, key=key)

    def _both_ways(self, dims: PositionDims) -> bool:
        return not dims.causal if self.bidirectional is None else self.bidirectional

    def _exact(self, dims: PositionDims) -> int:
        """Distances, from 0, that have a bucket each: half of those for one direction."""
        return self.num_buckets // 4 if self._both_ways(dims) else self.num_buckets // 2

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return cls(), cls(bidirectional=True)


def buckets(num_buckets: int, max_distance: int) -> np.ndarray:
    """int32 [max_distance + 1]: the bucket of each distance n >= 0; the last entry serves all beyond.

    n itself below e = num_buckets / 2, else e + floor(m ln(n/e) / ln(max_distance/e)) with m = num_buckets - e. The
    floor is taken in whole numbers, (n/e)^m >= (max_distance/e)^k, so no logarithm is rounded and none is taken of 0.
    """
    exact = num_buckets // 2
    m = num_buckets - exact
    thresholds = [max_distance**k * exact ** (m - k) for k in range(1, m)]
    far = [exact + sum(n**m >= threshold for threshold in thresholds) for n in range(exact, max_distance + 1)]
    return np.array([*range(exact), *far], np.int32)


class T5(PositionEncoding):
    has_bias = True

    def __init__(self, config: T5Config, max_distance: int, bidirectional: bool, num_heads: int, *, key: Array):
        self.num_buckets = config.num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.table = normal(
            key, "table", (config.num_buckets, num_heads), (None, "heads"), config.init_std, decay=False
        )

    def bucket(self, q: Positions, k: Positions) -> Array:
        """int32 [B or 1, T, S]: rows of the table. In the causal form a key after the query counts as distance 0."""
        ahead = k.position[:, None, :] - q.position[:, :, None]
        if not self.bidirectional:
            side = buckets(self.num_buckets, self.max_distance)
            return jnp.asarray(side)[jnp.clip(-ahead, 0, self.max_distance)]
        side = buckets(self.num_buckets // 2, self.max_distance)
        both = np.concatenate([side[::-1], side[1:] + self.num_buckets // 2])  # by key minus query, from -max to max
        return jnp.asarray(both)[jnp.clip(ahead, -self.max_distance, self.max_distance) + self.max_distance]

    def bias(self, q: Positions, k: Positions) -> Array:
        """float32 [B or 1, N, T, S]."""
        return jnp.moveaxis(self.table[...].astype(jnp.float32)[self.bucket(q, k)], -1, 1)
