"""Multi-head, grouped-query and multi-query attention."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.nn.mixer.base import LayerDims, MixerConfig, MixerContext
from jaxgpt.nn.norm import RMSNorm
from jaxgpt.nn.params import constant, named, normal
from jaxgpt.nn.position.base import Positions
from jaxgpt.ops.attention import Dropout, Implementation, attention
from jaxgpt.ops.linear import linear
from jaxgpt.registry import register


@register("attention")
@dataclasses.dataclass(frozen=True)
class AttentionConfig(MixerConfig):
    """Softmax attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Fewer key-value heads than heads is grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), a single one
    multi-query attention (Shazeer 2019, arXiv:1911.02150).
    """

    qk_norm: bool = False  # RMS normalisation of queries and keys per head (Dehghani et al. 2023, arXiv:2302.05442)
    implementation: Implementation | None = None  # None: chosen by length

    def make(self, dims: LayerDims, key: Array) -> Attention:
        return Attention(self, dims, key)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionState:
    """One layer's keys and values with where they stand; an argument and a result, never an attribute."""

    keys: Array  # [B, S, K, H], rotated unless the encoding rotates by length
    values: Array  # [B, S, K, H]
    where: Positions

    def write(self, at: Array, keys: Array, values: Array, where: Positions) -> AttentionState:
        """The state with new tokens from index `at` on."""

        def put(old: Array, new: Array) -> Array:
            new = jnp.broadcast_to(new, (old.shape[0], *new.shape[1:])).astype(old.dtype)
            return jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=1)

        return jax.tree.map(put, self, AttentionState(keys, values, where))


class Attention(nnx.Module):
    """Queries, keys and values from linear maps, heads mixed by `ops.attention`, one linear map back."""

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

    def init_state(self, batch: int, length: int, dtype: jnp.dtype) -> AttentionState:
        shape = (batch, length, self.dims.num_kv_heads, self.dims.head_dim)
        return AttentionState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), Positions.empty(batch, length))

    def __call__(
        self, x_BTD: Array, context: MixerContext, state: AttentionState | None
    ) -> tuple[Array, AttentionState | None, dict[str, Array]]:
        position, where = context.position, context.positions
        q, k, v = self._project(x_BTD)
        q = position.queries(q, where)
        if not position.rotates_by_length or state is None:
            k = position.keys(k, where)
        k_where = where
        if state is not None:
            assert context.at is not None
            state = state.write(context.at, k, v, where)
            k, v, k_where = state.keys, state.values, state.where
            if position.rotates_by_length:
                k = position.keys(k, k_where)
        y = attention(
            q,
            k.astype(q.dtype),
            v.astype(q.dtype),
            where,
            k_where,
            context.mask,
            position.bias if position.has_bias else None,
            self._dropout(context.key),
            self.config.implementation,
            causal=state is None,  # then queries and keys are the same tokens in order, and every mask is causal
        )
        bias = None if self.output_bias is None else self.output_bias[...]
        return linear(y, self.output[...], bias, contract=2), state, {}

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
