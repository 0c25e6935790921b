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

    Evaluation, which has no random key, always takes the first of `evaluation_length` positions that are drawn once: a
    token's position must not depend on how many follow, or cached keys would not be those of a full pass. (The paper
    draws as many as the sequence has tokens.) Longer sequences are refused. The gaps are maximum / evaluation_length
    tokens on average there, maximum / T in training.

    inner: the encoding that sees these positions. It is made for a training length of `maximum`.
    maximum: N, positions there are to draw from; by default 32 times the training length.
    evaluation_length: tokens that can be evaluated at once; by default N/2.
    evaluation_seed: of the one draw.
    """

    inner: PositionConfig = RopeConfig()
    maximum: int | None = None
    evaluation_length: int | None = None
    evaluation_seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.inner, RandomisedConfig):
            raise ValueError("inner: randomised positions cannot be randomised again; choose another encoding")
        for name in ("maximum", "evaluation_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} must be at least 1")

    def lengths(self, dims: PositionDims) -> tuple[int, int]:
        """N and the evaluation length, in tokens."""
        maximum = self.maximum or 32 * dims.train_length
        return maximum, self.evaluation_length or max(maximum // 2, dims.train_length)

    def check(self, dims: PositionDims) -> None:
        maximum, evaluated = self.lengths(dims)
        if maximum < dims.train_length:
            raise ConfigError(
                f"position.maximum: {dims.train_length} positions, the training length, cannot be drawn from "
                f"{maximum}; raise it"
            )
        if not dims.train_length <= evaluated <= maximum:
            raise ConfigError(
                f"position.evaluation_length: {evaluated} must lie between the training length {dims.train_length} and "
                f"position.maximum {maximum}"
            )
        self.inner.check(dataclasses.replace(dims, train_length=maximum))

    def make(self, dims: PositionDims, key: Array) -> Randomised:
        self.check(dims)
        maximum, evaluated = self.lengths(dims)
        inner = self.inner.make(dataclasses.replace(dims, train_length=maximum), named(key, "inner"))
        return Randomised(inner, maximum, evaluated, self.evaluation_seed)

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return cls(), cls(inner=LearnedConfig(), maximum=64)


class Randomised(PositionEncoding):
    shift_invariant = False  # as many tokens further on stand other gaps
    way_out = "shorten the sequence or raise position.evaluation_length (and position.maximum)"

    def __init__(self, inner: PositionEncoding, maximum: int, evaluation_length: int, seed: int):
        self.inner = inner
        self.has_bias, self.rotates_by_length = inner.has_bias, inner.rotates_by_length
        self.maximum, self.max_length, self.seed = maximum, evaluation_length, seed

    def assign(self, positions: Positions, key: Array | None) -> Positions:
        """Positions of other values in the same order; index and segment stay."""
        if key is None:
            assert self.max_length is not None
            table = jnp.asarray(_drawn_once(self.seed, self.maximum, self.max_length))
        else:
            drawn = jax.random.permutation(named(key, "randomised"), self.maximum)[: positions.index.shape[1]]
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
