"""Attention with linear biases.

Shapes: B batch, T query tokens, S key tokens, N heads.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxgpt.config import added_later
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.registry import register


@register("alibi")
@dataclasses.dataclass(frozen=True)
class AlibiConfig(PositionConfig):
    """Scores fall linearly with distance, at a fixed slope per head (Press et al. 2021, arXiv:2108.12409).

    Any number of heads. Without a causal mask the distance is |i - j|.

    slopes: one number per head, if not those of the paper (checkpoints that were trained with others).
    """

    slopes: tuple[float, ...] | None = added_later(None)

    def check(self, dims: PositionDims) -> None:
        if self.slopes is not None and len(self.slopes) != dims.num_heads:
            raise ConfigError(
                f"position.slopes: {len(self.slopes)} numbers are given and {dims.num_heads} are needed, one per head"
            )

    def make(self, dims: PositionDims, key: Array) -> Alibi:
        self.check(dims)
        return Alibi(slopes(dims.num_heads) if self.slopes is None else self.slopes)


def slopes(num_heads: int) -> tuple[float, ...]:
    """One slope per head: 2^(-8h/N), h = 1..N; where N is no power of two, those of the power of two below, then every
    second one of the power of two above (the authors' code)."""
    below = 2 ** (num_heads.bit_length() - 1)
    own = [2.0 ** (-8 * h / below) for h in range(1, below + 1)]
    between = [2.0 ** (-4 * h / below) for h in range(1, 2 * below + 1, 2)]
    return tuple(own + between[: num_heads - below])


class Alibi(PositionEncoding):
    has_bias = True

    def __init__(self, slopes: tuple[float, ...]):
        self.slopes = slopes

    def bias(self, q: Positions, k: Positions) -> Array:
        """float32 [B or 1, N, T, S]: -slope * |i - j|. The shorter form, slope * j, is the same to a softmax but large:
        it loses the difference between neighbours where scores are rounded."""
        distance = jnp.abs(q.position[:, :, None] - k.position[:, None, :]).astype(jnp.float32)
        return -jnp.asarray(self.slopes, jnp.float32)[None, :, None, None] * distance[:, None]
