"""Two linear maps with an activation between them."""

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
from jaxgpt.ops.layout import flatten_tokens, unflatten_tokens
from jaxgpt.ops.linear import linear
from jaxgpt.registry import register


@register("dense")
@dataclasses.dataclass(frozen=True)
class DenseConfig(FeedForwardConfig):
    """activation(x W1 + b1) W2 + b2 (Vaswani et al. 2017, arXiv:1706.03762, equation 2)."""

    activation: Activation = "gelu_tanh"
    hidden: int | None = None  # hidden width; without it multiplier * width
    multiplier: float = 4.0
    bias: bool | None = added_later(None)  # None: as the model says

    def __post_init__(self):
        check_hidden(self.hidden, self.multiplier)

    def make(self, dims: LayerDims, key: Array) -> Dense:
        return Dense(self, dims, key)

    def flops_per_token(self, width: int) -> int:
        return 4 * width * self.hidden_of(width)

    def hidden_of(self, width: int) -> int:
        return hidden_width(self.hidden, self.multiplier, width, 1)


class Dense(nnx.Module):
    def __init__(self, config: DenseConfig, dims: LayerDims, key: Array):
        hidden = config.hidden_of(dims.width)
        self.activation: Activation = config.activation
        self.up = normal(key, "up", (dims.width, hidden), ("embed", "hidden"), dims.init_std)
        self.down = normal(key, "down", (hidden, dims.width), ("hidden", "embed"), dims.residual_std)
        bias = dims.has_bias(config.bias)
        self.up_bias = constant(0.0, (hidden,), ("hidden",)) if bias else None
        self.down_bias = constant(0.0, (dims.width,), ("embed",)) if bias else None

    def __call__(self, x_BTD: Array, context: MixerContext | None = None) -> tuple[Array, dict[str, Array]]:
        if x_BTD.ndim == 2:  # tokens that a mixture flattened
            return self.through(linear, x_BTD), {}
        return unflatten_tokens(self.through(linear, flatten_tokens(x_BTD)), *x_BTD.shape[:2]), {}

    def through(self, multiply: Multiply, x: Array) -> Array:
        """The layer with `multiply` for its products: experts have weights of their own."""
        hidden = multiply(x, self.up[...], None if self.up_bias is None else self.up_bias[...])
        hidden = ACTIVATIONS[self.activation](hidden)
        return multiply(hidden, self.down[...], None if self.down_bias is None else self.down_bias[...])
