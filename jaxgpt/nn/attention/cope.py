"""Contextual position encoding: attention that counts what its content says is worth counting.

Shapes: B batch, T query tokens, S key tokens, N heads, K key-value heads, H head width.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.attention.cache import LayerCache
from jaxgpt.nn.attention.multi_head import Attention, AttentionConfig
from jaxgpt.nn.mixer.base import LayerDims, MixerConfig, MixerContext
from jaxgpt.nn.params import constant
from jaxgpt.ops.contextual import contextual_attention, contextual_map
from jaxgpt.ops.fused import Rows
from jaxgpt.registry import register


@register("cope")
@dataclasses.dataclass(frozen=True)
class ContextualConfig(AttentionConfig):
    """Positions that depend on content (Golovneva et al. 2024, arXiv:2405.18719, equations 3 to 5): the position of key
    j for query i is p = g_ij + ... + g_ii, at most max_position - 1, with gates g = sigmoid(scaled q.k), and q.e[p] is
    added to the score, interpolated between the learned vectors of the whole positions next to p (as the paper's
    code: gates from scaled scores, vectors from 0 on, one table for the heads of a layer). It tells order by itself:
    combine it with `position: nope`, as the paper, or with any encoding; e meets queries that no encoding has turned.

    max_position: vectors in the table; from that count on keys have one position.
    The other fields are those of `attention`; there is one implementation, over blocks of queries.
    """

    max_position: int = 64

    grows_by_head = False  # it has sums over the head width of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_position < 2:
            raise ValueError(f"max_position: {self.max_position} must be at least 2")
        if self.implementation is not None:
            raise ValueError(f"implementation: {self.implementation!r} is not one of cope's; it has one, leave it out")

    def make(self, dims: LayerDims, key: Array) -> ContextualAttention:
        return ContextualAttention(self, dims, key)

    def flops_per_token(self, dims: LayerDims, sequence_length: int) -> int:
        return super().flops_per_token(dims, sequence_length) + 2 * self.max_position * dims.num_heads * dims.head_dim

    @classmethod
    def examples(cls) -> tuple[MixerConfig, ...]:
        return cls(), cls(max_position=3)


class ContextualAttention(Attention):
    def __init__(self, config: ContextualConfig, dims: LayerDims, key: Array):
        super().__init__(config, dims, key)
        self.table = constant(0.0, (config.max_position, dims.head_dim), (None, None))

    def init_state(self, batch: int, length: int, dtype: jnp.dtype, window: int | None = None) -> LayerCache:
        return super().init_state(batch, length, dtype)  # keys are counted in their order: a ring would mix it up

    def mix(
        self, q_BTNH: Array, unturned_BTNH: Array, k_BSKH: Array, v_BSKH: Array, q_at, k_at, context, rows: Rows | None
    ) -> Array:
        (q_where, _), (k_where, _) = q_at, k_at
        bias = context.position.bias if context.position.has_bias else None
        dropout = self._dropout(context.key)
        arrays = q_BTNH, unturned_BTNH, k_BSKH, v_BSKH, self.table[...]
        return contextual_attention(*arrays, q_where, k_where, context.mask, bias, dropout, self.softmax)

    def map(self, q_BTNH: Array, unturned_BTNH: Array, k_BSKH: Array, q_at, k_at, context: MixerContext) -> Array:
        (q_where, _), (k_where, _) = q_at, k_at
        bias = context.position.bias if context.position.has_bias else None
        arrays = q_BTNH, unturned_BTNH, k_BSKH, self.table[...]
        return contextual_map(*arrays, q_where, k_where, context.mask, bias, self.softmax)
