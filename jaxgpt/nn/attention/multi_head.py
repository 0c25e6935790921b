"""Multi-head, grouped-query and multi-query attention."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.nn.mixer.base import LayerDims, MixerConfig, MixerContext
from jaxgpt.nn.norm import RMSNorm
from jaxgpt.nn.params import constant, named, normal
from jaxgpt.nn.position.base import PositionEncoding, Positions
from jaxgpt.ops.attention import Bias, Dropout, Implementation, attention
from jaxgpt.ops.linear import linear
from jaxgpt.registry import register


@register("attention")
@dataclasses.dataclass(frozen=True)
class AttentionConfig(MixerConfig):
    """Softmax attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Fewer key-value heads than heads is grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), a single one
    multi-query attention (Shazeer 2019, arXiv:1911.02150).

    qk_norm: RMS normalisation of queries and keys per head (Dehghani et al. 2023, arXiv:2302.05442).
    score_scale: what q.k grows by with n, the number of keys a query sees, so that attention does not flatten in longer
        contexts. `log_n`: ln n / ln L, L the training length (Chiang & Cholak 2022, arXiv:2202.12172). `ssmax`: s ln n
        with s learned per head and layer from 1 / ln L on (Nakanishi 2025, arXiv:2501.19399). n is each query's own:
        its place in its document, at most the window. What an encoding adds to the scores is not scaled.
    implementation: of `ops.attention`; None: chosen by length.
    """

    qk_norm: bool = False
    score_scale: Literal["one", "log_n", "ssmax"] = "one"
    implementation: Implementation | None = None

    def make(self, dims: LayerDims, key: Array) -> Attention:
        return Attention(self, dims, key)

    def flops_per_token(self, dims: LayerDims, sequence_length: int) -> int:
        projections = 2 * dims.width * dims.head_dim * (2 * dims.num_heads + 2 * dims.num_kv_heads)
        return projections + 4 * sequence_length * dims.num_heads * dims.head_dim

    @classmethod
    def examples(cls) -> tuple[MixerConfig, ...]:
        return cls(), cls(score_scale="log_n"), cls(score_scale="ssmax")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionState:
    """One layer's keys and values with where they stand; an argument and a result, never an attribute."""

    keys: Array  # [B, S, K, H], rotated unless the encoding rotates by length
    values: Array  # [B, S, K, H]
    where: Positions
    extra: Any = None  # what a kind of attention keeps of each token beside that: a pytree of [B, S, ...]

    def write(self, at: Array, keys: Array, values: Array, where: Positions, extra: Any = None) -> AttentionState:
        """The state with new tokens from index `at` on."""

        def put(old: Array, new: Array) -> Array:
            new = jnp.broadcast_to(new, (old.shape[0], *new.shape[1:])).astype(old.dtype)
            return jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=1)

        return jax.tree.map(put, self, AttentionState(keys, values, where, extra))


class Attention(nnx.Module):
    """Queries, keys and values from linear maps, heads mixed by `ops.attention`, one linear map back.

    Other kinds of attention override `extra`, `bias` or `mix`.
    """

    def __init__(self, config: AttentionConfig, dims: LayerDims, key: Array):
        self.config, self.dims = config, dims
        width, head_dim = dims.width, dims.head_dim
        heads, kv_heads = ("embed", "heads", None), ("embed", "kv_heads", None)
        self.query = normal(key, "query", (width, dims.num_heads, head_dim), heads, dims.init_std)
        self.key = normal(key, "key", (width, dims.num_kv_heads, head_dim), kv_heads, dims.init_std)
        self.value = normal(key, "value", (width, dims.num_kv_heads, head_dim), kv_heads, dims.init_std)
        self.output = normal(
            key, "output", (dims.num_heads, head_dim, width), ("heads", None, "embed"), dims.residual_std
        )
        self.query_bias = constant(0.0, (dims.num_heads, head_dim), ("heads", None)) if dims.bias else None
        self.key_bias = constant(0.0, (dims.num_kv_heads, head_dim), ("kv_heads", None)) if dims.bias else None
        self.value_bias = constant(0.0, (dims.num_kv_heads, head_dim), ("kv_heads", None)) if dims.bias else None
        self.output_bias = constant(0.0, (width,), ("embed",)) if dims.bias else None
        self.query_norm = RMSNorm(head_dim, 1e-6) if config.qk_norm else None
        self.key_norm = RMSNorm(head_dim, 1e-6) if config.qk_norm else None
        # A training length of 1 has no logarithm to divide by, and needs no scale either.
        self.inverse_log_length = 1 / math.log(max(dims.train_length, 2))
        learned = config.score_scale == "ssmax"
        self.score_scale = constant(self.inverse_log_length, (dims.num_heads,), ("heads",)) if learned else None

    def init_state(self, batch: int, length: int, dtype: jnp.dtype) -> AttentionState:
        shape = (batch, length, self.dims.num_kv_heads, self.dims.head_dim)
        return AttentionState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), Positions.empty(batch, length))

    def __call__(
        self, x_BTD: Array, context: MixerContext, state: AttentionState | None
    ) -> tuple[Array, AttentionState | None, dict[str, Array]]:
        position, where = context.position, context.positions
        q, k, v = self._project(x_BTD)
        turned = self._scaled(position.queries(q, where), context)
        if not position.rotates_by_length or state is None:
            k = position.keys(k, where)
        q_at = k_at = (where, self.extra(x_BTD, context, state))
        if state is not None:
            assert context.at is not None
            state = state.write(context.at, k, v, *q_at)
            k, v, k_at = state.keys, state.values, (state.where, state.extra)
            if position.rotates_by_length:
                k = position.keys(k, state.where)
        # Without a state queries and keys are the same tokens in order, and every mask is causal.
        causal = state is None
        y = self.mix(turned, q, k.astype(q.dtype), v.astype(q.dtype), q_at, k_at, context, causal)
        bias = None if self.output_bias is None else self.output_bias[...]
        return linear(y, self.output[...], bias, contract=2), state, {}

    def extra(self, x_BTD: Array, context: MixerContext, state: AttentionState | None) -> Any:
        """What `bias` needs of the new tokens beside their positions: a pytree of [B, T, ...], kept in the state."""
        return None

    def bias(self, position: PositionEncoding) -> Bias | None:
        """What is added to the scores: float32 [B or 1, N, T, S] of two pairs (positions, extra)."""
        return (lambda q, k: position.bias(q[0], k[0])) if position.has_bias else None

    def mix(
        self, q_BTNH: Array, unturned_BTNH: Array, k_BSKH: Array, v_BSKH: Array, q_at, k_at, context, causal: bool
    ) -> Array:
        """[B, T, N, H] of queries, the same before positions and scale changed them, keys and values; `q_at` and `k_at`
        are pairs (positions, extra)."""

        def mask(q, k) -> Array:
            return context.mask(q[0], k[0])

        dropout, implementation = self._dropout(context.key), self.config.implementation
        bias = self.bias(context.position)
        return attention(q_BTNH, k_BSKH, v_BSKH, q_at, k_at, mask, bias, dropout, implementation, causal)

    def _scaled(self, q_BTNH: Array, context: MixerContext) -> Array:
        """Queries times the factor of `score_scale`, float32 [B or 1, T, N]."""
        if self.config.score_scale == "one":
            return q_BTNH
        pace = self.inverse_log_length if self.score_scale is None else self.score_scale[...][None, None]
        factor = jnp.log(context.visible().astype(jnp.float32))[:, :, None] * pace
        return (q_BTNH.astype(jnp.float32) * factor[..., None]).astype(q_BTNH.dtype)

    def _project(self, x_BTD: Array) -> tuple[Array, Array, Array]:
        def project(weight: nnx.Param, bias: nnx.Param | None) -> Array:
            return linear(x_BTD, weight[...], None if bias is None else bias[...])

        q, k = project(self.query, self.query_bias), project(self.key, self.key_bias)
        v = project(self.value, self.value_bias)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return q, k, v

    def _dropout(self, key: Array | None) -> Dropout | None:
        if key is None or self.dims.dropout == 0.0:
            return None
        return Dropout(self.dims.dropout, named(key, "attention_weights"))
