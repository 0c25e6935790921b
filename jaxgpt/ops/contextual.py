"""Attention whose positions are counted by content (CoPE).

Shapes: B batch, T query tokens, S key tokens, N heads, K key-value heads, H head width, P integer positions.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.ops.attention import (
    MASKED,
    PLAIN,
    Bias,
    Dropout,
    Mask,
    Softmax,
    Where,
    in_blocks,
    keep,
    where_in_blocks,
)

BLOCK = 128  # queries whose scores are held at once


def contextual_attention(
    q_BTNH: Array,
    unturned_BTNH: Array,
    k_BSKH: Array,
    v_BSKH: Array,
    table_PH: Array,
    q_where: Where,
    k_where: Where,
    mask: Mask,
    bias: Bias | None = None,
    dropout: Dropout | None = None,
    softmax: Softmax = PLAIN,
    block: int = BLOCK,
) -> Array:
    """Softmax attention with scores z + u.e[p] + bias, z = q.k / sqrt(H); returns [B, T, N, H] in q's type.

    p of a query and a key is the sum of sigmoid(z) over the keys from that one on which the query sees, at most P - 1;
    u are the queries for the position embeddings e (`table_PH`), between whole p interpolated linearly. Keys stand in
    the order of their arrays. Memory grows with S times `block`: blocks of queries go one after the other, and are
    computed again for the gradient.
    """
    queries, size = q_BTNH.shape[1], min(block, q_BTNH.shape[1])
    groups = q_BTNH.shape[2] // k_BSKH.shape[2]
    k, v = (jnp.moveaxis(jnp.repeat(x, groups, axis=2), 2, 1).astype(jnp.float32) for x in (k_BSKH, v_BSKH))
    q, unturned = (jnp.moveaxis(x, 2, 1).astype(jnp.float32) for x in (q_BTNH, unturned_BTNH))
    position_logits = jnp.einsum("BNTH,PH->BNTP", unturned, table_PH)

    def one_block(block):
        q, logits, at, number = block
        dropped = None if dropout is None else Dropout(dropout.rate, jax.random.fold_in(dropout.key, number))
        return _attend(q, logits, at, k, v, k_where, mask, bias, dropped, softmax)

    parts = in_blocks(q, 2, size), in_blocks(position_logits, 2, size), where_in_blocks(q_where, size)
    out = jax.lax.map(jax.checkpoint(one_block), (*parts, jnp.arange(parts[0].shape[0])))
    out = jnp.moveaxis(out, 0, 2).reshape(*q.shape[:2], -1, q.shape[-1])[:, :, :queries]
    return jnp.moveaxis(out, 1, 2).astype(q_BTNH.dtype)


def contextual_map(
    q_BTNH: Array,
    unturned_BTNH: Array,
    k_BSKH: Array,
    table_PH: Array,
    q_where: Where,
    k_where: Where,
    mask: Mask,
    bias: Bias | None = None,
    softmax: Softmax = PLAIN,
) -> Array:
    """The weights with which `contextual_attention` sums values, float32 [B, N, T, S]; to look at."""
    k = jnp.moveaxis(jnp.repeat(k_BSKH, q_BTNH.shape[2] // k_BSKH.shape[2], axis=2), 2, 1).astype(jnp.float32)
    q, unturned = (jnp.moveaxis(x, 2, 1).astype(jnp.float32) for x in (q_BTNH, unturned_BTNH))
    return _weights(q, jnp.einsum("BNTH,PH->BNTP", unturned, table_PH), q_where, k, k_where, mask, bias, softmax)


def _attend(q_BNTH, logits_BNTP, q_where, k_BNSH, v_BNSH, k_where, mask, bias, dropout, softmax) -> Array:
    weights = keep(_weights(q_BNTH, logits_BNTP, q_where, k_BNSH, k_where, mask, bias, softmax), dropout)
    return jnp.einsum("BNTS,BNSH->BNTH", weights, v_BNSH)


def _weights(q_BNTH, logits_BNTP, q_where, k_BNSH, k_where, mask, bias, softmax) -> Array:
    products = jnp.einsum("BNTH,BNSH->BNTS", q_BNTH, k_BNSH)
    scores = softmax.capped(products * softmax.factor(q_BNTH.shape[-1]))
    visible = mask(q_where, k_where)[:, None]
    gates = jnp.where(visible, jax.nn.sigmoid(scores), 0.0)
    last = logits_BNTP.shape[-1] - 1
    place = jnp.minimum(jax.lax.cumsum(gates, axis=3, reverse=True), last)
    below = jnp.floor(place).astype(jnp.int32)
    at = functools.partial(jnp.take_along_axis, logits_BNTP, axis=-1)
    share = place - below
    scores = scores + (1 - share) * at(below) + share * at(jnp.minimum(below + 1, last))
    if bias is not None:
        scores = scores + bias(q_where, k_where)
    return softmax.weights(jnp.where(visible, scores, MASKED))
