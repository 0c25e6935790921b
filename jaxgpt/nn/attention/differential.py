"""Attention as a difference of two, which cancels what both see alike.

Shapes: B batch, T query tokens, S key tokens, D model width, N heads, K key-value heads, H head width.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.attention.multi_head import Attention, AttentionConfig
from jaxgpt.nn.mixer.base import LayerDims, MixerConfig
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.params import normal
from jaxgpt.ops.fused import Rows
from jaxgpt.registry import register


@register("differential")
@dataclasses.dataclass(frozen=True)
class DifferentialConfig(AttentionConfig):
    """(softmax(q1 k1) - lambda softmax(q2 k2)) V, the result normalised and scaled by 1 - lambda_start (Ye et al. 2024,
    Differential Transformer, arXiv:2410.05258, equations 1 to 3).

    The model's heads are taken in pairs: the two of a pair attend apart and share their values, which are as wide as
    both together. So parameters and FLOPs are those of ordinary attention with as many heads. lambda =
    exp(a1.b1) - exp(a2.b2) + lambda_start, with vectors a and b learned per layer.

    lambda_start: None: 0.8, the paper's for deep layers (its own grows from 0.2 in the first).
    The other fields are those of `attention`. Two sinks of a pair act apart; norms of queries and keys as usual.
    """

    lambda_start: float | None = None

    grows_by_head = False  # it has sums over the head width of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambda_start is not None and not 0 <= self.lambda_start < 1:
            raise ValueError(f"lambda_start: {self.lambda_start} must be at least 0 and below 1")

    def check(self, dims: LayerDims) -> None:
        if dims.num_kv_heads % 2:
            raise ValueError(
                f"num_kv_heads: differential attention takes heads in pairs, and {dims.num_kv_heads} is odd"
            )

    def make(self, dims: LayerDims, key: Array) -> DifferentialAttention:
        return DifferentialAttention(self, dims, key)

    @classmethod
    def examples(cls) -> tuple[MixerConfig, ...]:
        return cls(), cls(lambda_start=0.3, qk_norm=True)


class DifferentialAttention(Attention):
    def __init__(self, config: DifferentialConfig, dims: LayerDims, key: Array):
        super().__init__(config, dims, key)
        self.start = 0.8 if config.lambda_start is None else config.lambda_start
        names = ("lambda_query_1", "lambda_key_1", "lambda_query_2", "lambda_key_2")
        drawn = [normal(key, name, (dims.head_dim,), (None,), 0.1, decay=False) for name in names]
        self.lambda_query_1, self.lambda_key_1, self.lambda_query_2, self.lambda_key_2 = drawn
        self.pair_norm = RMSNormConfig(1e-5).make(2 * dims.head_dim, bias=False)

    def mix(self, q_BTNH, unturned_BTNH, k_BSKH, v_BSKH, q_at, k_at, context, rows: Rows | None) -> Array:
        # Values of a pair of key-value heads, side by side, for both of them.
        batch, keys, kv_heads, width = v_BSKH.shape
        pairs_BSPX = v_BSKH.reshape(batch, keys, kv_heads // 2, 2 * width)
        v_BSKX = jnp.repeat(pairs_BSPX, 2, axis=2)
        # Query heads come as [K, N/K]: the two of a pair stand in the two key-value heads of a pair.
        y_BTNX = super().mix(q_BTNH, unturned_BTNH, k_BSKH, v_BSKX, q_at, k_at, context, rows)
        shape = (*y_BTNX.shape[:2], kv_heads // 2, 2, -1, 2 * width)
        paired = y_BTNX.reshape(shape).astype(jnp.float32)  # [B, T, P, 2, N/K, 2H]
        difference = paired[:, :, :, 0] - self._lambda() * paired[:, :, :, 1]
        normed = (1 - self.start) * self.pair_norm(difference)
        return normed.reshape(q_BTNH.shape).astype(q_BTNH.dtype)

    def _lambda(self) -> Array:
        one, two = (
            jnp.exp(jnp.dot(a[...].astype(jnp.float32), b[...].astype(jnp.float32)))
            for a, b in ((self.lambda_query_1, self.lambda_key_1), (self.lambda_query_2, self.lambda_key_2))
        )
        return one - two + self.start
