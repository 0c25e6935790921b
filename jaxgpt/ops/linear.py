"""Matrix products the way XLA likes them."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from jaxgpt.ops.layout import flatten_tokens, unflatten_tokens


def linear(x: Array, weight: Array, bias: Array | None = None, *, contract: int = 1) -> Array:
    """`x [..., *in]` times `weight [*in, *out]` plus `bias [*out]`, where `in` is the last `contract` dimensions of x.

    Rows and time are flattened to one dimension first: on CPUs the gradients of products over [batch, time, width] cost
    twice those over [batch * time, width]. The weight is cast to x's type; sums are float32, the result has x's type.
    """
    lead, inner = x.shape[: x.ndim - contract], x.shape[x.ndim - contract :]
    assert weight.shape[:contract] == inner, (x.shape, weight.shape)
    outer = weight.shape[contract:]
    tokens = flatten_tokens(x) if len(lead) == 2 else x
    flat = tokens.reshape(math.prod(lead), math.prod(inner))
    matrix = weight.reshape(math.prod(inner), math.prod(outer)).astype(x.dtype)
    y = jnp.dot(flat, matrix, preferred_element_type=jnp.float32)
    if bias is not None:
        y = y + bias.reshape(1, -1).astype(jnp.float32)
    y = y.astype(x.dtype)
    return (unflatten_tokens(y, *lead) if len(lead) == 2 else y).reshape(*lead, *outer)
