"""Multi-head latent attention: keys and values from a narrow latent, which is all that is cached.

Shapes: B batch, T query tokens, S key tokens, D model width, N heads, R latent width, P width without and H with
positions, V value width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.nn.attention.cache import LayerCache
from jaxgpt.nn.attention.multi_head import weights_dropout
from jaxgpt.nn.mixer.base import LayerDims, MixerConfig, MixerContext
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.params import constant, normal
from jaxgpt.ops.attention import Bias, Implementation, Softmax, attention, attention_map
from jaxgpt.ops.fused import Rows
from jaxgpt.ops.linear import linear
from jaxgpt.registry import register


@register("latent")
@dataclasses.dataclass(frozen=True)
class LatentConfig(MixerConfig):
    """Multi-head latent attention, MLA (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    kv_rank: R, width of the latent that keys and values are made of.
    query_rank: width of the queries' own latent; None: they come from the stream directly.
    plain_width: P, what of a head's queries and keys positions leave alone.
    rotary_width: H, what positions act on; keys share it among all heads. An encoding sees this as its head width.
    value_width: V, of each head's values.
    scale: factor of q.k; None: 1/sqrt(P + H).
    bias, output_bias: of the maps down to the latents, and of the one back; None: as the model says.
    implementation: of `ops.attention`; None: chosen by length.

    One new token over a cache is read in the latent itself: queries are brought to its width, and so each head's keys
    and values never exist (section 2.1.2).
    """

    kv_rank: int = 64
    query_rank: int | None = None
    plain_width: int = 32
    rotary_width: int = 16
    value_width: int = 32
    scale: float | None = None
    bias: bool | None = None
    output_bias: bool | None = None
    implementation: Implementation | None = None

    def __post_init__(self) -> None:
        for name in ("kv_rank", "query_rank", "plain_width", "rotary_width", "value_width"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.scale is not None and self.scale <= 0:
            raise ValueError(f"scale: {self.scale} must be greater than 0")

    def make(self, dims: LayerDims, key: Array) -> LatentAttention:
        return LatentAttention(self, dims, key)

    def position_width(self, dims: LayerDims) -> int:
        return self.rotary_width

    def flops_per_token(self, dims: LayerDims, sequence_length: int) -> int:
        heads, width = dims.num_heads, self.plain_width + self.rotary_width
        queries = dims.width * heads * width
        if self.query_rank is not None:
            queries = self.query_rank * (dims.width + heads * width)
        latent = dims.width * (self.kv_rank + self.rotary_width)
        grown = self.kv_rank * heads * (self.plain_width + self.value_width)
        output = heads * self.value_width * dims.width
        return 2 * (queries + latent + grown + output + sequence_length * heads * (width + self.value_width))

    @classmethod
    def examples(cls) -> tuple[MixerConfig, ...]:
        return cls(kv_rank=24), cls(query_rank=20, kv_rank=12, plain_width=8, rotary_width=6, value_width=10)


class LatentAttention(nnx.Module):
    def __init__(self, config: LatentConfig, dims: LayerDims, key: Array):
        self.config, self.dims = config, dims
        width, heads, rank, std = dims.width, dims.num_heads, config.kv_rank, dims.init_std
        norm, query_width = RMSNormConfig(1e-6), config.plain_width + config.rotary_width
        bias = dims.has_bias(config.bias)
        output_bias = dims.has_bias(config.output_bias)
        from_width = config.query_rank or width
        down, up = ("embed", None), (None, "heads", None)
        low = config.query_rank is not None
        self.query_down = normal(key, "query_down", (width, from_width), down, std) if low else None
        self.query_down_bias = constant(0.0, (from_width,), (None,)) if low and bias else None
        self.query_norm = norm.make(from_width, False) if low else None
        query_axes = (None if low else "embed", "heads", None)
        self.query = normal(key, "query", (from_width, heads, query_width), query_axes, std)
        self.latent = normal(key, "latent", (width, rank), down, std)
        self.latent_bias = constant(0.0, (rank,), (None,)) if bias else None
        self.latent_norm = norm.make(rank, False)
        self.rotary_key = normal(key, "rotary_key", (width, config.rotary_width), down, std)
        self.rotary_key_bias = constant(0.0, (config.rotary_width,), (None,)) if bias else None
        self.key = normal(key, "key", (rank, heads, config.plain_width), up, std)
        self.value = normal(key, "value", (rank, heads, config.value_width), up, std)
        output_axes = ("heads", None, "embed")
        self.output = normal(key, "output", (heads, config.value_width, width), output_axes, dims.residual_std)
        self.output_bias = constant(0.0, (width,), ("embed",)) if output_bias else None

    def init_state(self, batch: int, length: int, dtype: jnp.dtype, window: int | None = None) -> LayerCache:
        entries = {"latent": ((self.config.kv_rank,), dtype), "rotary_key": ((self.config.rotary_width,), dtype)}
        return LayerCache.empty(entries, batch, length, window)

    def __call__(
        self, x_BTD: Array, context: MixerContext, state: LayerCache | None
    ) -> tuple[Array, LayerCache | None, dict[str, Array]]:
        position, where, plain = context.position, context.positions, self.config.plain_width
        q_BTNX = self._queries(x_BTD)
        turned = position.queries(q_BTNX[..., plain:], where)
        q_BTNX = jnp.concatenate([q_BTNX[..., :plain], turned], axis=-1)
        latent_BSR = self.latent_norm(linear(x_BTD, self.latent[...], _or_none(self.latent_bias)))
        rotary_BSH = linear(x_BTD, self.rotary_key[...], _or_none(self.rotary_key_bias))
        if not position.rotates_by_length or state is None:
            rotary_BSH = position.keys(rotary_BSH[:, :, None], where)[:, :, 0]
        k_where, rows = where, context.rows if state is None else None
        if state is not None:
            assert context.at is not None
            new = {"latent": latent_BSR, "rotary_key": rotary_BSH}
            state, seen, k_where = state.extend(context.at, new, where)
            latent_BSR, rotary_BSH = (seen[name].astype(x_BTD.dtype) for name in ("latent", "rotary_key"))
            if position.rotates_by_length:
                rotary_BSH = position.keys(rotary_BSH[:, :, None], k_where)[:, :, 0]
        attend = self._in_the_latent if state is not None and x_BTD.shape[1] == 1 else self._by_head
        y_BTNV = attend(q_BTNX, latent_BSR, rotary_BSH, k_where, context, rows)
        aux = {}
        if "attention" in context.capture:
            bias = context.position.bias if context.position.has_bias else None
            arguments = q_BTNX, self._keys(latent_BSR, rotary_BSH), context.positions, k_where, context.mask, bias
            aux["attention"] = attention_map(*arguments, Softmax(self._scale))
        return linear(y_BTNV, self.output[...], _or_none(self.output_bias), contract=2), state, aux

    def _queries(self, x_BTD: Array) -> Array:
        if self.query_down is None or self.query_norm is None:
            return linear(x_BTD, self.query[...])
        low = linear(x_BTD, self.query_down[...], _or_none(self.query_down_bias))
        return linear(self.query_norm(low), self.query[...])

    def _by_head(self, q_BTNX, latent_BSR, rotary_BSH, k_where, context, rows) -> Array:
        """With each head's keys and values spelt out."""
        k_BSNX, v_BSNV = self._keys(latent_BSR, rotary_BSH), linear(latent_BSR, self.value[...])
        return self._attention(q_BTNX, k_BSNX, v_BSNV, k_where, context, rows)

    def _keys(self, latent_BSR: Array, rotary_BSH: Array) -> Array:
        k_BSNP = linear(latent_BSR, self.key[...])
        shared = jnp.broadcast_to(rotary_BSH[:, :, None], (*k_BSNP.shape[:3], rotary_BSH.shape[-1]))
        return jnp.concatenate([k_BSNP, shared], axis=-1)

    @property
    def _scale(self) -> float:
        width = self.config.plain_width + self.config.rotary_width
        return width**-0.5 if self.config.scale is None else self.config.scale

    def _in_the_latent(self, q_BTNX, latent_BSR, rotary_BSH, k_where, context, rows) -> Array:
        """One key-value head for all: q.(W z) = (W^T q).z, and values are made of the weighted latents."""
        plain = self.config.plain_width
        key_RNP, value_RNV = self.key[...].astype(q_BTNX.dtype), self.value[...].astype(q_BTNX.dtype)
        low_BTNR = jnp.einsum("BTNP,RNP->BTNR", q_BTNX[..., :plain], key_RNP)
        q = jnp.concatenate([low_BTNR, q_BTNX[..., plain:]], axis=-1)
        k = jnp.concatenate([latent_BSR, rotary_BSH], axis=-1)[:, :, None]
        mixed_BTNR = self._attention(q, k, latent_BSR[:, :, None], k_where, context, rows)
        return jnp.einsum("BTNR,RNV->BTNV", mixed_BTNR, value_RNV)

    def _attention(self, q, k, v, k_where: Any, context: MixerContext, rows: Rows | None) -> Array:
        config, position = self.config, context.position
        bias: Bias | None = position.bias if position.has_bias else None
        dropout = weights_dropout(self.dims, context.key)
        arguments = q, k, v, context.positions, k_where, context.mask, bias, dropout
        return attention(*arguments, config.implementation, rows, Softmax(self._scale))


def _or_none(parameter: nnx.Param | None) -> Array | None:
    return None if parameter is None else parameter[...]
