"""Sandwich: the inner products of sinusoidal embeddings as a bias.

Shapes: B batch, T query tokens, S key tokens, N heads.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.registry import register


@register("sandwich")
@dataclasses.dataclass(frozen=True)
class SandwichConfig(PositionConfig):
    """The product of two sinusoidal embeddings, which depends on their distance only, as a bias without parameters (Chi
    et al. 2022, arXiv:2212.10356, section 5): head h = 1..N of N adds

        (sum over i = 1..width/2 of cos(n / 10000^(2i/width)) - width/2) / (8h/N),  n = |i - j|.

    Subtracting width/2, which no softmax notices, makes it 0 at distance 0.

    width: of the sinusoidal embeddings; it need not be the model's.
    """

    width: int = 128

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width: {self.width} must be even and at least 2")

    def make(self, dims: PositionDims, key: Array) -> Sandwich:
        return Sandwich(self.width, dims.num_heads)


class Sandwich(PositionEncoding):
    has_bias = True

    def __init__(self, width: int, num_heads: int):
        self.width, self.num_heads = width, num_heads

    def bias(self, q: Positions, k: Positions) -> Array:
        """float32 [B or 1, N, T, S].

        By cos(a - b) = cos a cos b + sin a sin b the sum is one matrix product, instead of width/2 cosines per pair of
        tokens. Angles are measured from the first query: of tokens close to each other they are small, wherever in the
        sequence these stand, so that float32 holds them well.
        """
        start = q.position[:, :1]
        waves_q, waves_k = self._waves(q.position - start), self._waves(k.position - start)
        precision = jax.lax.Precision.HIGHEST
        total = jnp.einsum("BTW,BSW->BTS", waves_q, waves_k, precision=precision) - self.width / 2
        ratios = np.arange(1, self.num_heads + 1) * 8 / self.num_heads
        return total[:, None] / jnp.asarray(ratios, jnp.float32)[None, :, None, None]

    def _waves(self, position: Array) -> Array:
        """float32 [B or 1, T, width]: cosines and sines."""
        pairs = np.arange(1, self.width // 2 + 1)
        frequencies = jnp.asarray(10_000.0 ** (-2 * pairs / self.width), jnp.float32)
        angles = position.astype(jnp.float32)[:, :, None] * frequencies[None, None]
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
