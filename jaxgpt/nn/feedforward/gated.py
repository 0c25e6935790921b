"""A gated linear unit in the feed-forward layer (SwiGLU, GeGLU)."""

from __future__ import annotations

import dataclasses

from flax import nnx
from jax import Array

from jaxgpt.config import added_later
from jaxgpt.nn.activation import ACTIVATIONS, Activation
from jaxgpt.nn.feedforward.base import FeedForwardConfig, check_hidden, hidden_width
from jaxgpt.nn.mixer.base import LayerDims, MixerContext
from jaxgpt.nn.params import constant, normal
from jaxgpt.ops.experts import Multiply
from jaxgpt.ops.linear import linear
from jaxgpt.registry import register


@register("gated")
@dataclasses.dataclass(frozen=True)
class GatedConfig(FeedForwardConfig):
    """(activation(x W_gate) * x W_up) W_down (Shazeer 2020, arXiv:2002.05202, equation 6)."""

    activation: Activation = "silu"
    hidden: int | None = None  # hidden width; without it multiplier * width, rounded up to `multiple_of`
    multiplier: float = 8 / 3  # as many parameters as a dense layer of 4
    multiple_of: int = 8
    bias: bool | None = added_later(None)  # None: as the model says

    def __post_init__(self):
        check_hidden(self.hidden, self.multiplier)
        if self.multiple_of < 1:
            raise ValueError(f"multiple_of must be at least 1, got {self.multiple_of}")

    def make(self, dims: LayerDims, key: Array) -> Gated:
        return Gated(self, dims, key)

    def flops_per_token(self, width: int) -> int:
        return 6 * width * self.hidden_of(width)

    def hidden_of(self, width: int) -> int:
        return hidden_width(self.hidden, self.multiplier, width, self.multiple_of)


class Gated(nnx.Module):
    def __init__(self, config: GatedConfig, dims: LayerDims, key: Array):
        hidden = config.hidden_of(dims.width)
        self.activation: Activation = config.activation
        self.gate = normal(key, "gate", (dims.width, hidden), ("embed", "hidden"), dims.init_std)
        self.up = normal(key, "up", (dims.width, hidden), ("embed", "hidden"), dims.init_std)
        self.down = normal(key, "down", (hidden, dims.width), ("hidden", "embed"), dims.residual_std)
        bias = dims.has_bias(config.bias)
        self.gate_bias = constant(0.0, (hidden,), ("hidden",)) if bias else None
        self.up_bias = constant(0.0, (hidden,), ("hidden",)) if bias else None
        self.down_bias = constant(0.0, (dims.width,), ("embed",)) if bias else None

    def __call__(self, x_BTD: Array, context: MixerContext | None = None) -> tuple[Array, dict[str, Array]]:
        return self.through(linear, x_BTD), {}

    def through(self, multiply: Multiply, x: Array) -> Array:
        """The layer with `multiply` for its products: experts have weights of their own."""
        gate = multiply(x, self.gate[...], None if self.gate_bias is None else self.gate_bias[...])
        up = multiply(x, self.up[...], None if self.up_bias is None else self.up_bias[...])
        return multiply(self.gated(gate, up), self.down[...], None if self.down_bias is None else self.down_bias[...])

    def gated(self, gate: Array, up: Array) -> Array:
        return ACTIVATIONS[self.activation](gate) * up
