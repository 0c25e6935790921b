"""Multi-head, grouped-query and multi-query attention."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.config import added_later
from jaxgpt.nn.attention.cache import LayerCache
from jaxgpt.nn.mixer.base import LayerDims, MixerConfig, MixerContext
from jaxgpt.nn.norm import LayerNormConfig, Norm, NormConfig, RMSNormConfig
from jaxgpt.nn.params import constant, named, normal
from jaxgpt.nn.position.base import PositionEncoding
from jaxgpt.ops.attention import Bias, Dropout, Implementation, Mask, Softmax, attention, attention_map
from jaxgpt.ops.fused import Rows
from jaxgpt.ops.linear import linear
from jaxgpt.registry import register


@register("attention")
@dataclasses.dataclass(frozen=True)
class AttentionConfig(MixerConfig):
    """Softmax attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Fewer key-value heads than heads is grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), a single one
    multi-query attention (Shazeer 2019, arXiv:1911.02150).

    qk_norm: normalisation of queries and keys before positions act on them (Dehghani et al. 2023, arXiv:2302.05442).
    qk_norm_over: what it normalises. `head`: each head, all with one gain; `each_head`: each head, with a gain of its
        own; `width`: all heads at once (OLMo 2, arXiv:2501.00656, section 3.3).
    qk_norm_kind: how; None: `rmsnorm` with epsilon 1e-6.
    score_scale: what q.k grows by with n, the number of keys a query sees, so that attention does not flatten in longer
        contexts. `log_n`: ln n / ln L, L the training length (Chiang & Cholak 2022, arXiv:2202.12172). `ssmax`: s ln n
        with s learned per head and layer from 1 / ln L on (Nakanishi 2025, arXiv:2501.19399). n is each query's own:
        its place in its document, at most the window. What an encoding adds to the scores is not scaled.
    scale: factor of q.k; None: 1/sqrt(H), H the head width. Under muP the base model's, times its H / H.
    soft_cap: bound of q.k times its factor, by tanh (Gemma 2, arXiv:2408.00118, section 2.2).
    sinks: a learned logit per head that takes part in the softmax and has no value (gpt-oss, arXiv:2508.10925).
    clip: bound of what each linear map to queries, keys and values gives (MPT; OLMo, arXiv:2402.00838).
    bias, output_bias: of the maps to queries, keys and values, and of the one back; None: as the model says.
    gate: the heads' results are multiplied by sigmoid(x W) before the map back, one number per `head` or per `channel`
        (Qiu et al. 2025, arXiv:2505.06708, equation 5).
    implementation: of `ops.attention`; None: chosen by length.
    """

    qk_norm: bool = False
    qk_norm_over: Literal["head", "each_head", "width"] = added_later("head")
    qk_norm_kind: NormConfig | None = added_later(None)
    score_scale: Literal["one", "log_n", "ssmax"] = "one"
    scale: float | None = added_later(None)
    soft_cap: float | None = added_later(None)
    sinks: bool = added_later(False)
    clip: float | None = added_later(None)
    bias: bool | None = added_later(None)
    output_bias: bool | None = added_later(None)
    gate: Literal["none", "head", "channel"] = added_later("none")
    implementation: Implementation | None = None

    grows_by_head = True

    def __post_init__(self) -> None:
        for name in ("scale", "soft_cap", "clip"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}: {value} must be greater than 0")

    def score_factor(self, dims: LayerDims) -> float:
        """What q.k is multiplied by."""
        base = dims.base_head_dim or dims.head_dim
        return (base**-0.5 if self.scale is None else self.scale) * (base / dims.head_dim)

    def make(self, dims: LayerDims, key: Array) -> Attention:
        return Attention(self, dims, key)

    def flops_per_token(self, dims: LayerDims, sequence_length: int) -> int:
        projections = 2 * dims.width * dims.head_dim * (2 * dims.num_heads + 2 * dims.num_kv_heads)
        gate = 2 * dims.width * dims.num_heads * {"none": 0, "head": 1, "channel": dims.head_dim}[self.gate]
        return projections + gate + 4 * sequence_length * dims.num_heads * dims.head_dim

    @classmethod
    def examples(cls) -> tuple[MixerConfig, ...]:
        return (
            cls(),
            cls(score_scale="log_n"),
            cls(score_scale="ssmax"),
            cls(qk_norm=True, qk_norm_over="each_head", qk_norm_kind=LayerNormConfig(bias=False), gate="head"),
            cls(qk_norm=True, qk_norm_over="width", soft_cap=3.0, sinks=True, gate="channel"),
            cls(scale=0.4, clip=2.0, bias=True, output_bias=True),
        )


class Attention(nnx.Module):
    """Queries, keys and values from linear maps, heads mixed by `ops.attention`, one linear map back.

    Other kinds of attention override `extra`, `bias`, or `mix` and `map`.
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
        bias = dims.has_bias(config.bias)
        self.query_bias = constant(0.0, (dims.num_heads, head_dim), ("heads", None)) if bias else None
        self.key_bias = constant(0.0, (dims.num_kv_heads, head_dim), ("kv_heads", None)) if bias else None
        self.value_bias = constant(0.0, (dims.num_kv_heads, head_dim), ("kv_heads", None)) if bias else None
        output_bias = dims.has_bias(config.output_bias)
        self.output_bias = constant(0.0, (width,), ("embed",)) if output_bias else None
        self.query_norm = self._norm(dims.num_heads) if config.qk_norm else None
        self.key_norm = self._norm(dims.num_kv_heads) if config.qk_norm else None
        self.sinks = constant(0.0, (dims.num_heads,), ("heads",)) if config.sinks else None
        gates = {"none": None, "head": 1, "channel": head_dim}[config.gate]
        shape = (width, dims.num_heads, gates or 0)
        self.output_gate = None if gates is None else normal(key, "output_gate", shape, heads, dims.init_std)
        # A training length of 1 has no logarithm to divide by, and needs no scale either.
        self.inverse_log_length = 1 / math.log(max(dims.train_length, 2))
        learned = config.score_scale == "ssmax"
        self.score_scale = constant(self.inverse_log_length, (dims.num_heads,), ("heads",)) if learned else None

    def _norm(self, heads: int) -> Norm:
        kind, head_dim = self.config.qk_norm_kind or RMSNormConfig(epsilon=1e-6), self.dims.head_dim
        if self.config.qk_norm_over == "width":
            return kind.make(heads * head_dim, self.dims.bias)
        return kind.make(head_dim, self.dims.bias, heads if self.config.qk_norm_over == "each_head" else None)

    def init_state(self, batch: int, length: int, dtype: jnp.dtype, window: int | None = None) -> LayerCache:
        entry = (self.dims.num_kv_heads, self.dims.head_dim), dtype  # keys: rotated unless the encoding goes by length
        return LayerCache.empty({"keys": entry, "values": entry, "extra": self.kept_extra}, batch, length, window)

    def __call__(
        self, x_BTD: Array, context: MixerContext, state: LayerCache | None
    ) -> tuple[Array, LayerCache | None, dict[str, Array]]:
        position, where = context.position, context.positions
        q, k, v = self._project(x_BTD)
        turned = self._scaled(position.queries(q, where), context)
        if not position.rotates_by_length or state is None:
            k = position.keys(k, where)
        extra = self.extra(x_BTD, context, state)
        q_at = k_at = (where, extra)
        if state is not None:
            assert context.at is not None
            entries = {"keys": k, "values": v, "extra": extra}
            state, seen, seen_where = state.extend(context.at, entries, where)
            k, v, k_at = seen["keys"], seen["values"], (seen_where, seen["extra"])
            if position.rotates_by_length:
                k = position.keys(k, seen_where)
        rows = context.rows if state is None else None  # queries and keys are the same tokens, in order
        k, v = k.astype(q.dtype), v.astype(q.dtype)
        y = self.mix(turned, q, k, v, q_at, k_at, context, rows)
        aux = {"attention": self.map(turned, q, k, q_at, k_at, context)} if "attention" in context.capture else {}
        if self.output_gate is not None:
            y = y * jax.nn.sigmoid(linear(x_BTD, self.output_gate[...]).astype(jnp.float32)).astype(y.dtype)
        bias = None if self.output_bias is None else self.output_bias[...]
        return linear(y, self.output[...], bias, contract=2), state, aux

    kept_extra: Any = None  # of each token: a pytree of (shape, type), as `extra` gives them

    def extra(self, x_BTD: Array, context: MixerContext, state: LayerCache | None) -> Any:
        """What `bias` needs of the new tokens beside their positions: a pytree of [B, T, ...], kept in the state."""
        return None

    def bias(self, position: PositionEncoding) -> Bias | None:
        """What is added to the scores: float32 [B or 1, N, T, S] of two pairs (positions, extra)."""
        return (lambda q, k: position.bias(q[0], k[0])) if position.has_bias else None

    def mix(
        self, q_BTNH: Array, unturned_BTNH: Array, k_BSKH: Array, v_BSKH: Array, q_at, k_at, context, rows: Rows | None
    ) -> Array:
        """[B, T, N, H] of queries, the same before positions and scale changed them, keys and values; `q_at` and `k_at`
        are pairs (positions, extra)."""

        how = self.bias(context.position), self._dropout(context.key), self.config.implementation, rows, self.softmax
        return attention(q_BTNH, k_BSKH, v_BSKH, q_at, k_at, _mask(context), *how)

    def map(self, q_BTNH: Array, unturned_BTNH: Array, k_BSKH: Array, q_at, k_at, context: MixerContext) -> Array:
        """float32 [B, N, T, S]: the weights with which `mix` sums values, without dropout; to look at."""

        return attention_map(q_BTNH, k_BSKH, q_at, k_at, _mask(context), self.bias(context.position), self.softmax)

    @property
    def softmax(self) -> Softmax:
        """How products of queries and keys become weights."""
        sinks = None if self.sinks is None else self.sinks[...]
        return Softmax(self.config.score_factor(self.dims), self.config.soft_cap, sinks)

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
            q, k = self._normed(q, self.query_norm), self._normed(k, self.key_norm)
        clip = self.config.clip
        if clip is not None:
            q, k, v = (jnp.clip(x, -clip, clip) for x in (q, k, v))
        return q, k, v

    def _normed(self, x_BTNH: Array, norm: Norm) -> Array:
        if self.config.qk_norm_over != "width":
            return norm(x_BTNH)
        return norm(x_BTNH.reshape(*x_BTNH.shape[:2], -1)).reshape(x_BTNH.shape)

    def _dropout(self, key: Array | None) -> Dropout | None:
        return weights_dropout(self.dims, key)


def weights_dropout(dims: LayerDims, key: Array | None) -> Dropout | None:
    """Dropout of attention weights; None without a key."""
    return None if key is None or dims.dropout == 0.0 else Dropout(dims.dropout, named(key, "attention_weights"))


def _mask(context: MixerContext) -> Mask:
    """The context's mask, called on pairs (positions, extra)."""
    return lambda q, k: context.mask(q[0], k[0])
