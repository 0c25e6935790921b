"""Tokens through the experts they were sent to: several ways to compute one sum.

A layer is given as a function of `multiply`, which stands for the matrix products with each expert's own weights:
`layer(multiply, x)`. `every` is the twin that tests trust.

Shapes: M tokens (flattened), D model width, E experts, K experts per token, C places per expert, I and O the inputs and
outputs of a product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.ops.layout import platform

Multiply = Callable[[Array, Array, Array | None], Array]  # x [..., I], weight [E, I, O], bias [E, O] -> [..., O]
Layer = Callable[[Multiply, Array], Array]
Implementation = Literal["every", "ragged", "gather"]

FEW_EXPERTS = 4  # times those of a token: up to so many, a CPU computes them all sooner than it sorts (measured)


class ByToken(NamedTuple):
    """Each token's experts and their weights in its sum."""

    experts_MK: Array  # int32
    weights_MK: Array  # float32

    def hits(self, num_experts: int) -> Array:
        """bool [M, K, E]: which expert each choice is."""
        return self.experts_MK[:, :, None] == jnp.arange(num_experts)[None, None]


class ByExpert(NamedTuple):
    """Each expert's tokens and their weights; a place nobody took has weight 0."""

    tokens_EC: Array  # int32
    weights_EC: Array  # float32


def dropless(
    layer: Layer, x_MD: Array, choice: ByToken, num_experts: int, implementation: Implementation | None = None
) -> Array:
    """The weighted sum of each token's experts, [M, D]; none is left out.

    Without an `implementation`: `gather` where tokens need fewer matrices than there are, as in decoding; else
    `ragged`, or on CPUs with few experts `every`.
    """
    tokens, each = choice.experts_MK.shape
    if implementation is None:
        few = platform() == "cpu" and num_experts <= FEW_EXPERTS * each
        implementation = "gather" if tokens * each <= num_experts else "every" if few else "ragged"
    if implementation == "gather":
        return gather(layer, x_MD, choice)
    return {"every": every, "ragged": ragged}[implementation](layer, x_MD, choice, num_experts)


def _factors(x: Array, weight: Array) -> tuple[Array, Array]:
    """Both in the type of x. CPUs have no batched product of 16-bit numbers with 32-bit sums: there the numbers,
    rounded alike, are written in 32 bits, which changes no product."""
    weight = weight.astype(x.dtype)
    if platform() == "cpu":
        return x.astype(jnp.float32), weight.astype(jnp.float32)
    return x, weight


def every(layer: Layer, x_MD: Array, choice: ByToken, num_experts: int) -> Array:
    """All experts of all tokens, most of them times 0: the definition."""

    def multiply(x, weight_EIO, bias_EO):
        pattern = "MI,EIO->EMO" if x.ndim == 2 else "EMI,EIO->EMO"
        y = jnp.einsum(pattern, *_factors(x, weight_EIO), preferred_element_type=jnp.float32)
        return _plus(y, None if bias_EO is None else bias_EO[:, None], x.dtype)

    share_ME = jnp.einsum("MK,MKE->ME", choice.weights_MK, choice.hits(num_experts).astype(jnp.float32))
    y_EMD = layer(multiply, x_MD)
    return jnp.einsum("ME,EMD->MD", share_ME, y_EMD.astype(jnp.float32)).astype(x_MD.dtype)


def ragged(layer: Layer, x_MD: Array, choice: ByToken, num_experts: int) -> Array:
    """Tokens sorted by expert, one product with blocks of different heights (`jax.lax.ragged_dot`)."""
    each = choice.experts_MK.shape[1]
    flat = choice.experts_MK.reshape(-1)
    order = jnp.argsort(flat)
    sorted_experts = flat[order]
    sizes = jnp.bincount(flat, length=num_experts).astype(jnp.int32)

    def multiply(x, weight_EIO, bias_EO):
        y = jax.lax.ragged_dot(*_factors(x, weight_EIO), sizes, preferred_element_type=jnp.float32)
        return _plus(y, None if bias_EO is None else bias_EO[sorted_experts], x.dtype)

    y = layer(multiply, x_MD[order // each]).astype(jnp.float32) * choice.weights_MK.reshape(-1)[order][:, None]
    return jnp.zeros(x_MD.shape, jnp.float32).at[order // each].add(y).astype(x_MD.dtype)


def gather(layer: Layer, x_MD: Array, choice: ByToken) -> Array:
    """Each token with a copy of its experts' weights: for few tokens."""

    def multiply(x, weight_EIO, bias_EO):
        pattern = "MI,MKIO->MKO" if x.ndim == 2 else "MKI,MKIO->MKO"
        y = jnp.einsum(pattern, *_factors(x, weight_EIO[choice.experts_MK]), preferred_element_type=jnp.float32)
        return _plus(y, None if bias_EO is None else bias_EO[choice.experts_MK], x.dtype)

    y_MKD = layer(multiply, x_MD).astype(jnp.float32)
    return jnp.einsum("MK,MKD->MD", choice.weights_MK, y_MKD).astype(x_MD.dtype)


def by_expert(layer: Layer, x_MD: Array, choice: ByExpert) -> Array:
    """The sum over experts of what each makes of its tokens, [M, D]: dense products over places."""

    def multiply(x, weight_EIO, bias_EO):
        y = jnp.einsum("ECI,EIO->ECO", *_factors(x, weight_EIO), preferred_element_type=jnp.float32)
        return _plus(y, None if bias_EO is None else bias_EO[:, None], x.dtype)

    y_ECD = layer(multiply, x_MD[choice.tokens_EC]).astype(jnp.float32) * choice.weights_EC[:, :, None]
    flat = choice.tokens_EC.reshape(-1)
    return jnp.zeros(x_MD.shape, jnp.float32).at[flat].add(y_ECD.reshape(-1, x_MD.shape[1])).astype(x_MD.dtype)


def with_capacity(choice: ByToken, num_experts: int, places: int, counts_M: Array) -> tuple[ByExpert, Array]:
    """The choice with at most `places` tokens per expert, and bool [M, K]: which were kept.

    Places go to all first choices in the order of the tokens, then to all second ones, and so on (Lepikhin et al. 2020,
    GShard, arXiv:2006.16668, algorithm 1); who comes too late is dropped. Tokens without `counts_M` take none.
    """
    tokens, each = choice.experts_MK.shape
    hits = choice.hits(num_experts) & counts_M[:, None, None]
    in_order = jnp.swapaxes(hits, 0, 1).reshape(each * tokens, num_experts).astype(jnp.int32)  # [K * M, E]
    before = jnp.cumsum(in_order, axis=0) - in_order
    place_KM = (before * in_order).sum(axis=-1).reshape(each, tokens)
    kept_MK = (places > place_KM.T) & counts_M[:, None]
    place_MK = jnp.where(kept_MK, place_KM.T, places)  # beyond the last: written nowhere
    number_MK = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32)[:, None], (tokens, each))
    empty = jnp.zeros((num_experts, places), jnp.int32), jnp.zeros((num_experts, places), jnp.float32)
    tokens_EC = empty[0].at[choice.experts_MK, place_MK].set(number_MK, mode="drop")
    weights_EC = empty[1].at[choice.experts_MK, place_MK].set(choice.weights_MK, mode="drop")
    return ByExpert(tokens_EC, weights_EC), kept_MK


def _plus(y: Array, bias: Array | None, dtype: jnp.dtype) -> Array:
    return (y if bias is None else y + bias.astype(jnp.float32)).astype(dtype)
