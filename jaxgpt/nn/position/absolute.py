"""Encodings added to the token embeddings: learned vectors and sinusoids.

Shapes: B batch, T tokens, D model width.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxgpt.nn.params import normal
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.registry import register


@register("learned")
@dataclasses.dataclass(frozen=True)
class LearnedConfig(PositionConfig):
    """A learned vector per position, added to the token's (Gehring et al. 2017, arXiv:1705.03122; GPT-2).

    num_positions: rows of the table; by default the training length.
    beyond: what a position past the table gets. `error` refuses it: before compilation where the length or the
        positions are known, else as NaN (never silently another position's vector). `clamp` gives it the last vector.
    init_std: standard deviation of the vectors at the start.
    """

    num_positions: int | None = None
    beyond: Literal["error", "clamp"] = "error"
    init_std: float = 0.02

    def __post_init__(self) -> None:
        if self.num_positions is not None and self.num_positions < 1:
            raise ValueError(f"num_positions: {self.num_positions} must be at least 1")

    def make(self, dims: PositionDims, key: Array) -> Learned:
        return Learned(self, dims, key=key)

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return cls(), cls(beyond="clamp")


class Learned(PositionEncoding):
    shift_invariant = False
    way_out = (
        "shorten the sequence, raise position.num_positions, set position.beyond=clamp, or choose an encoding without "
        "a limit, such as rope or alibi"
    )

    def __init__(self, config: LearnedConfig, dims: PositionDims, *, key: Array):
        self.num_positions = config.num_positions or dims.train_length
        self.max_length = self.num_positions if config.beyond == "error" else None
        self.table = normal(key, "table", (self.num_positions, dims.width), ("position", "embed"), config.init_std)

    def embed(self, x_BTD: Array, positions: Positions) -> Array:
        """x + E[position]. Raises ConfigError where concrete positions lie past the table and the policy is `error`."""
        position_BT, table = positions.position, self.table[...]
        if self.max_length is None:
            vectors = table[jnp.minimum(position_BT, self.num_positions - 1)]
        else:
            position_BT = jnp.where(positions.segment > 0, position_BT, 0)  # padding may stand anywhere
            if not isinstance(position_BT, Tracer) and position_BT.size:
                self.check_range(int(position_BT.max()) + 1)
            vectors = table.at[position_BT].get(mode="fill", fill_value=jnp.nan)
        return (x_BTD.astype(jnp.float32) + vectors).astype(x_BTD.dtype)


@register("sinusoidal")
@dataclasses.dataclass(frozen=True)
class SinusoidalConfig(PositionConfig):
    """Sines and cosines of the position, added to the embeddings (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    Dimension 2p gets `scale * sin(position * theta^(-2p/D))`, dimension 2p+1 the cosine.

    scale: factor of the table. Unscaled its norm is sqrt(D/2), which swamps token embeddings drawn from N(0, 0.02).
        The paper scales the embeddings up to unit variance instead; without a number the table is scaled down to the
        embeddings' standard deviation, which keeps its ratio of the two.
    """

    theta: float = 10_000.0
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.theta <= 1:
            raise ValueError(f"theta: {self.theta} must be greater than 1")

    def make(self, dims: PositionDims, key: Array) -> Sinusoidal:
        return Sinusoidal(self, dims.embedding_std if self.scale is None else self.scale)


class Sinusoidal(PositionEncoding):
    shift_invariant = False

    def __init__(self, config: SinusoidalConfig, scale: float):
        self.config, self.scale = config, scale

    def table(self, position_BT: Array, width: int) -> Array:
        """float32 [B, T, width], unscaled; angles in float32, so off by up to position * 2^-23 radians."""
        frequencies = jnp.asarray(self.config.theta ** (-np.arange(0, width, 2) / width), jnp.float32)
        angles = position_BT[:, :, None].astype(jnp.float32) * frequencies[None, None]
        pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return pairs.reshape(*position_BT.shape, -1)[..., :width]

    def embed(self, x_BTD: Array, positions: Positions) -> Array:
        vectors = self.scale * self.table(positions.position, x_BTD.shape[-1])
        return (x_BTD.astype(jnp.float32) + vectors).astype(x_BTD.dtype)
