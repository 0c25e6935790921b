"""One residual block: a token mixer and a feed-forward layer, each with its norm."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.mixer.base import LayerDims, MixerConfig, MixerContext
from jaxgpt.nn.norm import NormConfig
from jaxgpt.nn.params import named

NormPlacement = Literal["pre", "post"]


def dropout(x: Array, rate: float, key: Array | None, name: str) -> Array:
    """`x` with a share `rate` of its elements zeroed and the others scaled up; `x` itself without a key."""
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(named(key, name), 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros((), x.dtype))


class Block(nnx.Module):
    """Pre-norm: x + f(norm(x)), as GPT-2. Post-norm: norm(x + f(x)), as Vaswani et al. 2017 (arXiv:1706.03762)."""

    def __init__(
        self,
        mixer: MixerConfig,
        feedforward: FeedForwardConfig,
        norm: NormConfig,
        placement: NormPlacement,
        residual_dropout: float,
        dims: LayerDims,
        *,
        key: Array,
    ):
        self.placement, self.residual_dropout = placement, residual_dropout
        self.mixer_norm = norm.make(dims.width, dims.bias)
        self.mixer = mixer.make(dims, named(key, "mixer"))
        self.feedforward_norm = norm.make(dims.width, dims.bias)
        self.feedforward = feedforward.make(dims, named(key, "feedforward"))

    def __call__(self, x_BTD: Array, context: MixerContext, state: Any) -> tuple[Array, Any, dict[str, Array]]:
        before = self.placement == "pre"
        y, state, mixer_aux = self.mixer(self.mixer_norm(x_BTD) if before else x_BTD, context, state)
        x_BTD = x_BTD + dropout(y, self.residual_dropout, context.key, "mixer_residual")
        x_BTD = x_BTD if before else self.mixer_norm(x_BTD)
        y, feedforward_aux = self.feedforward(self.feedforward_norm(x_BTD) if before else x_BTD)
        x_BTD = x_BTD + dropout(y, self.residual_dropout, context.key, "feedforward_residual")
        x_BTD = x_BTD if before else self.feedforward_norm(x_BTD)
        aux = {"residual_rms": jnp.sqrt(jnp.mean(jnp.square(x_BTD.astype(jnp.float32))))}
        return x_BTD, state, {**aux, **mixer_aux, **feedforward_aux}
