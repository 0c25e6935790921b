"""Attention: one signature, several implementations.

`naive` is the twin that tests trust, `dense` the same arithmetic in the layout CPUs like, `blockwise` keeps memory
proportional to the length. Positions (`q_where`, `k_where`) are pytrees of [B or 1, T] arrays, opaque here; `mask` and
`bias` are called on blocks of them. Scores and softmax are float32 whatever the inputs are.

Shapes: B batch, T query tokens, S key tokens, N heads, K key-value heads, G = N // K, H head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

MASKED = -1e30  # finite: a padded row sees nothing and must not become NaN
BLOCK = 256  # tokens per block of the blockwise implementation
DENSE_UP_TO = 1024  # keys up to which scores of the whole length are cheaper than blocks (measured on CPU)

Implementation = Literal["naive", "dense", "blockwise"]
Where = Any  # a pytree of [B or 1, T] arrays
Mask = Callable[[Where, Where], Array]  # -> bool [B or 1, T, S], True where a query may look
Bias = Callable[[Where, Where], Array]  # -> float32 [B or 1, N, T, S]


class Dropout(NamedTuple):
    """Dropout of attention weights."""

    rate: float
    key: Array


def attention(
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKH: Array,
    q_where: Where,
    k_where: Where,
    mask: Mask,
    bias: Bias | None = None,
    dropout: Dropout | None = None,
    implementation: Implementation | None = None,
) -> Array:
    """Softmax attention with scores q.k / sqrt(H) + bias; returns [B, T, N, H] in q's type.

    Without an `implementation`, lengths decide: `dense` while the scores of all pairs are small, `blockwise` beyond.
    """
    if implementation is None:
        short = k_BSKH.shape[1] <= DENSE_UP_TO or q_BTNH.shape[1] == 1
        implementation = "dense" if short else "blockwise"
    function = {"naive": naive, "dense": dense, "blockwise": blockwise}[implementation]
    return function(q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias, dropout)


def _keep(weights: Array, dropout: Dropout | None) -> Array:
    """`weights` after dropout: survivors are scaled up so that the expectation stays."""
    if dropout is None or dropout.rate == 0.0:
        return weights
    kept = jax.random.bernoulli(dropout.key, 1.0 - dropout.rate, weights.shape)
    return jnp.where(kept, weights / (1.0 - dropout.rate), 0.0)


def naive(q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias=None, dropout=None) -> Array:
    """One einsum after the other, nothing clever: the definition."""
    groups = q_BTNH.shape[2] // k_BSKH.shape[2]
    k_BSNH = jnp.repeat(k_BSKH, groups, axis=2).astype(jnp.float32)
    v_BSNH = jnp.repeat(v_BSKH, groups, axis=2).astype(jnp.float32)
    scores = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH.astype(jnp.float32), k_BSNH) * q_BTNH.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias(q_where, k_where)
    scores = jnp.where(mask(q_where, k_where)[:, None], scores, MASKED)
    weights = _keep(jax.nn.softmax(scores, axis=-1), dropout)
    return jnp.einsum("BNTS,BSNH->BTNH", weights, v_BSNH).astype(q_BTNH.dtype)


def _scores(q_BKGTH: Array, k_BKSH: Array, q_where, k_where, mask, bias) -> Array:
    """float32 scores [B, K, G, T, S] of one block, masked; the scale is already in q."""
    batch, kv_heads, groups, queries, width = q_BKGTH.shape
    flat = q_BKGTH.reshape(batch, kv_heads, groups * queries, width)
    scores = jnp.einsum("BKXH,BKSH->BKXS", flat, k_BKSH, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, kv_heads, groups, queries, k_BKSH.shape[2])
    if bias is not None:
        added = bias(q_where, k_where)
        scores = scores + added.reshape(added.shape[0], kv_heads, groups, *added.shape[2:])
    return jnp.where(mask(q_where, k_where)[:, None, None], scores, MASKED)


def _values(weights_BKGTS: Array, v_BKSH: Array) -> Array:
    """Weighted values, float32 [B, K, G, T, H]."""
    batch, kv_heads, groups, queries, keys = weights_BKGTS.shape
    flat = weights_BKGTS.reshape(batch, kv_heads, groups * queries, keys).astype(v_BKSH.dtype)
    out = jnp.einsum("BKXS,BKSH->BKXH", flat, v_BKSH, preferred_element_type=jnp.float32)
    return out.reshape(batch, kv_heads, groups, queries, v_BKSH.shape[-1])


def _heads_first(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array) -> tuple[Array, Array, Array]:
    """Heads before time, so that every product is a batched matrix product over contiguous memory; q is scaled."""
    batch, queries, heads, width = q_BTNH.shape
    kv_heads = k_BSKH.shape[2]
    q_BNTH = jnp.swapaxes(q_BTNH * jnp.asarray(width**-0.5, q_BTNH.dtype), 1, 2)
    q_BKGTH = q_BNTH.reshape(batch, kv_heads, heads // kv_heads, queries, width)
    return q_BKGTH, jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)


def _heads_last(out_BKGTH: Array, like: Array) -> Array:
    batch, kv_heads, groups, queries, width = out_BKGTH.shape
    return jnp.swapaxes(out_BKGTH.reshape(batch, kv_heads * groups, queries, width), 1, 2).astype(like.dtype)


def dense(q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias=None, dropout=None) -> Array:
    """All scores at once, heads first."""
    q, k, v = _heads_first(q_BTNH, k_BSKH, v_BSKH)
    weights = _keep(jax.nn.softmax(_scores(q, k, q_where, k_where, mask, bias), axis=-1), dropout)
    return _heads_last(_values(weights, v), q_BTNH)


def blockwise(q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias=None, dropout=None, block: int = BLOCK) -> Array:
    """Online softmax over blocks of queries and keys (Rabe & Staats 2021, arXiv:2112.05682; FlashAttention,
    arXiv:2205.14135): memory grows with T, not T * S. Blocks that the mask hides whole are skipped.
    """
    queries, keys = q_BTNH.shape[1], k_BSKH.shape[1]
    q, k, v = _heads_first(q_BTNH, k_BSKH, v_BSKH)
    size_q, size_k = min(block, queries), min(block, keys)
    q_blocks = _blocks(q, 3, size_q), _where_blocks(q_where, size_q)
    k_blocks = _blocks(k, 2, size_k), _blocks(v, 2, size_k), _where_blocks(k_where, size_k)
    numbers = jnp.arange(k_blocks[0].shape[0])
    present = _blocks(jnp.arange(keys)[None], 1, size_k, fill=keys) < keys  # [blocks, 1, size_k]; padding is no key

    def one_query_block(_, block_q):
        q_block, at, number = block_q
        drop_key = None if dropout is None else jax.random.fold_in(dropout.key, number)
        step = functools.partial(_key_block, q_block, at, mask, bias, dropout, drop_key)
        shape = q_block.shape[:-1]
        start = (jnp.full(shape, MASKED), jnp.zeros(shape), jnp.zeros(q_block.shape, jnp.float32))
        (_, total, out), _ = jax.lax.scan(jax.checkpoint(step), start, (*k_blocks, present, numbers))
        return None, out / jnp.maximum(total, 1e-30)[..., None]

    _, out = jax.lax.scan(one_query_block, None, (*q_blocks, jnp.arange(q_blocks[0].shape[0])))
    out = jnp.moveaxis(out, 0, 3).reshape(*q.shape[:3], -1, q.shape[-1])[:, :, :, :queries]
    return _heads_last(out, q_BTNH)


def _key_block(q_block, at, mask, bias, dropout, drop_key, carry, block_k):
    """One key block into the running (maximum, sum, weighted values) of a query block; skipped if it is all hidden."""
    k_block, v_block, where, present, number = block_k

    def visible_here(q_at, k_at):
        return mask(q_at, k_at) & present[:, None]

    def attend(carry):
        top, total, out = carry
        scores = _scores(q_block, k_block, at, where, visible_here, bias)
        new_top = jnp.maximum(top, scores.max(-1))
        # A row that has seen nothing yet has top = MASKED: exp(MASKED - MASKED) would count hidden keys as seen.
        weights = jnp.where(scores > MASKED / 2, jnp.exp(scores - new_top[..., None]), 0.0)
        shrink = jnp.exp(top - new_top)
        dropped = weights
        if dropout is not None:
            dropped = _keep(weights, Dropout(dropout.rate, jax.random.fold_in(drop_key, number)))
        out = out * shrink[..., None] + _values(dropped, v_block)
        return new_top, total * shrink + weights.sum(-1), out

    return jax.lax.cond(visible_here(at, where).any(), attend, lambda carry: carry, carry), None


def _blocks(x: Array, axis: int, size: int, fill: int = 0) -> Array:
    """`x` cut along `axis` into blocks of `size`, stacked in front; the last one is padded with `fill`."""
    missing = -x.shape[axis] % size
    widths = [(0, missing if i == axis else 0) for i in range(x.ndim)]
    padded = jnp.pad(x, widths, constant_values=fill)
    shape = (*x.shape[:axis], padded.shape[axis] // size, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(padded.reshape(shape), axis, 0)


def _where_blocks(where: Where, size: int) -> Where:
    return jax.tree.map(lambda x: _blocks(x, 1, size), where)
