"""The forgetting Transformer's attention.

Shapes: B batch, T tokens, S cached tokens, D model width, N heads.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.attention.cache import LayerCache
from jaxgpt.nn.attention.multi_head import Attention, AttentionConfig
from jaxgpt.nn.mixer.base import LayerDims, MixerConfig, MixerContext
from jaxgpt.nn.params import constant, normal
from jaxgpt.nn.position.base import PositionEncoding
from jaxgpt.ops.attention import Bias
from jaxgpt.ops.linear import linear
from jaxgpt.registry import register


@register("fox")
@dataclasses.dataclass(frozen=True)
class ForgettingConfig(AttentionConfig):
    """Attention that forgets by content (Lin et al. 2025, arXiv:2503.02130, equations 4 to 6): every token has a gate
    f = sigmoid(w.x + b) per head, and the score of query i and key j gets ln f_(j+1) + ... + ln f_i. It tells order by
    itself: combine it with `position: nope`, as the paper, or with any encoding.

    gate_bias: b at the start. 0 halves a key's weight with every token that follows.
    The other fields are those of `attention`; the gates' sums are not scaled by `score_scale`.
    """

    gate_bias: float = 0.0

    def make(self, dims: LayerDims, key: Array) -> ForgettingAttention:
        return ForgettingAttention(self, dims, key)

    def flops_per_token(self, dims: LayerDims, sequence_length: int) -> int:
        return super().flops_per_token(dims, sequence_length) + 2 * dims.width * dims.num_heads

    @classmethod
    def examples(cls) -> tuple[MixerConfig, ...]:
        return cls(), cls(implementation="blockwise")


class ForgettingAttention(Attention):
    def __init__(self, config: ForgettingConfig, dims: LayerDims, key: Array):
        super().__init__(config, dims, key)
        self.gate = normal(key, "gate", (dims.width, dims.num_heads), ("embed", "heads"), dims.init_std)
        self.gate_bias = constant(config.gate_bias, (dims.num_heads,), ("heads",))

    @property
    def kept_extra(self) -> Any:
        return (self.dims.num_heads,), jnp.float32

    def extra(self, x_BTD: Array, context: MixerContext, state: LayerCache | None) -> Array:
        """float32 [B, T, N]: the sum of ln f over the tokens of the row up to each, its own included. `bias` takes
        differences within a document, so it does not matter what stood before; they are off by 2^-24 of the sums."""
        logits = linear(x_BTD.astype(jnp.float32), self.gate[...], self.gate_bias[...])
        sums = jnp.cumsum(jax.nn.log_sigmoid(logits), axis=1)
        if state is None:
            return sums
        assert context.at is not None
        place = state.place(jnp.maximum(context.at - 1, 0))
        last = jax.lax.dynamic_slice_in_dim(state.entries["extra"], place, 1, axis=1)
        return sums + jnp.where(context.at > 0, last, 0.0)

    def bias(self, position: PositionEncoding) -> Bias:
        def total(q, k) -> Array:
            (q_where, q_sums), (k_where, k_sums) = q, k
            forgotten = jnp.moveaxis(q_sums[:, :, None] - k_sums[:, None, :], -1, 1)
            return forgotten + position.bias(q_where, k_where) if position.has_bias else forgotten

        return total
