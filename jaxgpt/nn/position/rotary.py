"""Rotary position embedding: queries and keys turned by angles proportional to their positions.

Shapes: B batch, T tokens, N heads, H head width, r rotary width (the first r of H dimensions).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.nn.position.rope_scaling import ScalingConfig, Spectrum
from jaxgpt.registry import register


@register("rope")
@dataclasses.dataclass(frozen=True)
class RopeConfig(PositionConfig):
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pair p turns by position * theta^(-2p/r).

    theta: base of the frequencies.
    layout: which dimensions form pair p. `half_split`: (p, p + r/2), as GPT-NeoX and Llama in transformers.
        `interleaved`: (2p, 2p + 1), as the paper and GPT-J. Weights trained with one do not fit the other.
    fraction: share of the head width that turns, its first r dimensions (Black et al. 2022, arXiv:2204.06745: 0.25).
    scaling: how frequencies change for sequences longer than trained on; none by default.
    """

    theta: float = 10_000.0
    layout: Literal["half_split", "interleaved"] = "half_split"
    fraction: float = 1.0
    scaling: ScalingConfig | None = None

    def __post_init__(self) -> None:
        if self.theta <= 1:
            raise ValueError(f"theta: {self.theta} must be greater than 1")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: {self.fraction} must be greater than 0 and at most 1")

    def check(self, dims: PositionDims) -> None:
        spectrum = self._spectrum(dims)
        if self.scaling is not None:
            self.scaling.check(spectrum)

    def make(self, dims: PositionDims, key: Array) -> Rope:
        self.check(dims)
        return Rope(self, self._spectrum(dims))

    def _spectrum(self, dims: PositionDims) -> Spectrum:
        return Spectrum(self.theta, rotary_width(self.fraction, dims.head_dim), dims.train_length)

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return cls(), cls(layout="interleaved"), cls(fraction=0.5), cls(fraction=0.5, layout="interleaved")


def rotary_width(fraction: float, head_dim: int) -> int:
    """How many of `head_dim` dimensions turn. Raises ConfigError unless they form pairs."""
    width = int(head_dim * fraction + 1e-6)  # the product may fall just short of a whole number
    if width % 2 == 0 and width > 0:
        return width
    if head_dim < 2:
        raise ConfigError(
            f"position: rope turns pairs of dimensions; a head width of {head_dim} has none, choose 2 or more"
        )
    valid = min(width + 1, head_dim - head_dim % 2) if width else 2
    shown = math.ceil(valid / head_dim * 1e4) / 1e4  # rounded up: truncation must not take the last dimension away
    even_head = ", or choose an even head width (model.width / model.num_heads)" if head_dim % 2 else ""
    raise ConfigError(
        f"position.fraction: rope turns pairs of dimensions, and {fraction:g} of the head width {head_dim} is {width}; "
        f"fraction={shown:g} turns {valid}{even_head}"
    )


class Rope(PositionEncoding):
    def __init__(self, config: RopeConfig, spectrum: Spectrum):
        self.config = config
        self.spectrum = spectrum
        self.rotates_by_length = config.scaling is not None and config.scaling.by_length
        self.shift_invariant = not self.rotates_by_length  # a later last position is another length

    def tables(self, positions: Positions) -> tuple[Array, Array]:
        """cos and sin, float32 [B or 1, T, r/2], temperature included; angles are off by up to position * 2^-23."""
        frequencies, temperature = self.spectrum.frequencies(), 1.0
        if self.config.scaling is not None:
            lengths_BT = positions.lengths() if self.rotates_by_length else positions.position
            frequencies, temperature = self.config.scaling.scale(self.spectrum, lengths_BT)
        frequencies = jnp.asarray(frequencies, jnp.float32)
        if frequencies.ndim == 1:
            frequencies = frequencies[None, None]
        angles = positions.position[:, :, None].astype(jnp.float32) * frequencies
        return temperature * jnp.cos(angles), temperature * jnp.sin(angles)

    def queries(self, q_BTNH: Array, positions: Positions) -> Array:
        return self.turn(q_BTNH, *self.tables(positions))

    def keys(self, k_BSKH: Array, positions: Positions) -> Array:
        return self.turn(k_BSKH, *self.tables(positions))

    def turn(self, x_BTNH: Array, cos: Array, sin: Array) -> Array:
        """Each pair of `x` turned by the tables [B or 1, T, r/2]; dimensions from r on stay."""
        width = self.spectrum.width
        x = x_BTNH[..., :width].astype(jnp.float32)
        # (a, b) -> (a cos - b sin, b cos + a sin), as x * cos + (each one's partner) * (-sin, sin). On CPU a roll costs
        # nothing beside the matmuls, where the gradient of split and concatenate costs a third of the attention scores.
        if self.config.layout == "half_split":
            partner = jnp.roll(x, width // 2, axis=-1)
            cos, sin = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
        else:
            partner = jnp.flip(x.reshape(*x.shape[:-1], width // 2, 2), axis=-1).reshape(x.shape)
            cos, sin = _weave(cos, cos), _weave(-sin, sin)
        turned = (x * cos[:, :, None] + partner * sin[:, :, None]).astype(x_BTNH.dtype)
        if width == x_BTNH.shape[-1]:
            return turned
        return jnp.concatenate([turned, x_BTNH[..., width:]], axis=-1)


def _weave(even: Array, odd: Array) -> Array:
    """[..., n] and [..., n] to [..., 2n]: even[0], odd[0], even[1], odd[1], ..."""
    return jnp.stack([even, odd], axis=-1).reshape(*even.shape[:-1], -1)
