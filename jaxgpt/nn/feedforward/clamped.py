"""The gated layer of gpt-oss: bounded, and never quite closed."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.feedforward.gated import Gated, GatedConfig
from jaxgpt.nn.mixer.base import LayerDims
from jaxgpt.registry import register


@register("clamped")
@dataclasses.dataclass(frozen=True)
class ClampedConfig(GatedConfig):
    """(gate * sigmoid(slope * gate) * (up + 1)) W_down, where gate is at most `limit` and up between -limit and limit
    (OpenAI 2025, gpt-oss, arXiv:2508.10925; the released code).

    The other fields are those of `gated`; the activation is `silu` with a slope.
    """

    slope: float = 1.702
    limit: float = 7.0

    def __post_init__(self):
        super().__post_init__()
        if self.activation != "silu":
            raise ValueError(f"activation: {self.activation!r} is not one of clamped's; it has silu, leave it out")
        if self.limit <= 0:
            raise ValueError(f"limit: {self.limit} must be greater than 0")

    def make(self, dims: LayerDims, key: Array) -> Clamped:
        return Clamped(self, dims, key)


class Clamped(Gated):
    def __init__(self, config: ClampedConfig, dims: LayerDims, key: Array):
        super().__init__(config, dims, key)
        self.slope, self.limit = config.slope, config.limit

    def gated(self, gate: Array, up: Array) -> Array:
        gate = jnp.minimum(gate, jnp.asarray(self.limit, gate.dtype))
        up = jnp.clip(up, -self.limit, self.limit)
        return gate * jax.nn.sigmoid(self.slope * gate) * (up + 1)
