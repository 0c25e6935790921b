"""Randomised positions: training sees positions of sequences much longer than its own."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.nn.params import named
from jaxgpt.nn.position.absolute import LearnedConfig
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.registry import register


@register("randomised")
@dataclasses.dataclass(frozen=True)
class RandomisedConfig(PositionConfig):
    """Any encoding over a random increasing choice of positions (Ruoss et al. 2023, arXiv:2305.16843, section 3): token
    p of a document gets the p-th smallest of T positions drawn without replacement from [0, maximum), T being the
    length of the row. Training draws anew in every step.

    Evaluation, which has no random key, draws once for every T, by `evaluation_seed`: gaps of maximum / T tokens on
    average, as in the paper. For rows up to the training length T is that length: they see the gaps of training.
    Cached decoding equals a full pass as long as the cache's capacity, which stands for T.

    inner: the encoding that sees these positions. It is made for a training length of `maximum`.
    maximum: N, positions there are to draw from; by default 32 times the training length. Longer rows are refused.
    evaluation_seed: of the draws of evaluation.
    """

    inner: PositionConfig = RopeConfig()
    maximum: int | None = None
    evaluation_seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.inner, RandomisedConfig):
            raise ValueError("inner: randomised positions cannot be randomised again; choose another encoding")
        if self.maximum is not None and self.maximum < 1:
            raise ValueError(f"maximum: {self.maximum} must be at least 1")

    def _inner_dims(self, dims: PositionDims) -> PositionDims:
        return dataclasses.replace(dims, train_length=self.maximum or 32 * dims.train_length)

    def check(self, dims: PositionDims) -> None:
        inner = self._inner_dims(dims)
        if inner.train_length < dims.train_length:
            raise ConfigError(
                f"position.maximum: {dims.train_length} positions, the training length, cannot be drawn from "
                f"{inner.train_length}; raise it"
            )
        self.inner.check(inner)

    def make(self, dims: PositionDims, key: Array) -> Randomised:
        self.check(dims)
        inner = self._inner_dims(dims)
        made = self.inner.make(inner, named(key, "inner"))
        return Randomised(made, inner.train_length, dims.train_length, self.evaluation_seed)

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return cls(), cls(inner=LearnedConfig(), maximum=64)


class Randomised(PositionEncoding):
    shift_invariant = False  # as many tokens further on stand other gaps
    way_out = "shorten the sequence or raise position.maximum"

    def __init__(self, inner: PositionEncoding, maximum: int, train_length: int, seed: int):
        self.inner = inner
        self.has_bias, self.rotates_by_length = inner.has_bias, inner.rotates_by_length
        self.max_length, self.train_length, self.seed = maximum, train_length, seed

    def assign(self, positions: Positions, length: int, key: Array | None) -> Positions:
        """Positions of other values in the same order; index and segment stay."""
        assert self.max_length is not None
        if key is None:
            table = jnp.asarray(_drawn_once(self.seed, self.max_length, max(length, self.train_length)))
        else:
            drawn = jax.random.permutation(named(key, "randomised"), self.max_length)[:length]
            table = jnp.sort(drawn).astype(jnp.int32)
        return dataclasses.replace(positions, position=table[positions.position])

    def embed(self, x_BTD: Array, positions: Positions) -> Array:
        return self.inner.embed(x_BTD, positions)

    def queries(self, q_BTNH: Array, positions: Positions) -> Array:
        return self.inner.queries(q_BTNH, positions)

    def keys(self, k_BSKH: Array, positions: Positions) -> Array:
        return self.inner.keys(k_BSKH, positions)

    def bias(self, q: Positions, k: Positions) -> Array:
        return self.inner.bias(q, k)


@functools.cache
def _drawn_once(seed: int, maximum: int, length: int) -> np.ndarray:
    """int32 [length], increasing: drawn without replacement from [0, maximum)."""
    drawn = np.random.default_rng(seed).choice(maximum, length, replace=False)
    return np.sort(drawn).astype(np.int32)
