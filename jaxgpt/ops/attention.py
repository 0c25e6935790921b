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
CACHE_BYTES = 2**20  # float32 scores that stay in a core's cache with what is computed from them (measured on CPU)
CAUSAL_BLOCK = 64  # queries per slice of causal attention, at least; no more than CAUSAL_SLICES of them
CAUSAL_SLICES = 4

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
    causal: bool = False,
) -> Array:
    """Softmax attention with scores q.k / sqrt(H) + bias; returns [B, T, N, H] in q's type.

    `causal` says what the opaque mask cannot: queries and keys are the same tokens, and none sees one to its right in
    the arrays. It changes no result (but of padded rows, which see nothing); `dense` leaves out what it knows hidden.

    Without an `implementation`, lengths decide: `dense` while the scores of all pairs are small, `blockwise` beyond.
    """
    if implementation is None:
        short = k_BSKH.shape[1] <= DENSE_UP_TO or q_BTNH.shape[1] == 1
        implementation = "dense" if short else "blockwise"
    arguments = q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias, dropout
    if implementation == "dense":
        return dense(*arguments, causal=causal)
    return {"naive": naive, "blockwise": blockwise}[implementation](*arguments)


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


def _scores(q_BKGTH: Array, k_BKSH: Array, visible: Array, bias: Array | None) -> Array:
    """float32 scores [B, K, G, T, S] of one block, masked; the scale is already in q."""
    batch, kv_heads, groups, queries, width = q_BKGTH.shape
    flat = q_BKGTH.reshape(batch, kv_heads, groups * queries, width)
    scores = jnp.einsum("BKXH,BKSH->BKXS", flat, k_BKSH, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, kv_heads, groups, queries, k_BKSH.shape[2])
    if bias is not None:
        scores = scores + bias.reshape(bias.shape[0], kv_heads, groups, *bias.shape[2:])
    return jnp.where(visible[:, None, None], scores, MASKED)


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


def dense(q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias=None, dropout=None, causal=False) -> Array:
    """All scores of a sequence at once, heads first.

    CPUs are slow where scores leave the cache, so there sequences go through in groups whose scores fit, and the
    backward pass computes scores again instead of reading them back. Causal scores are cut into a few slices of
    queries, each with the keys up to its end. What all sequences share of mask and bias is computed once.
    """
    q, k, v = _heads_first(q_BTNH, k_BSKH, v_BSKH)
    batch, queries, keys = q.shape[0], q.shape[3], k.shape[2]
    if jax.default_backend() != "cpu" or dropout is not None:
        rows, ends = batch, [queries]
    else:
        rows = _rows(batch, q_BTNH.shape[2] * queries * keys * 4)
        ends = _slice_ends(queries) if causal and queries == keys else [queries]
    slices = list(zip([0, *ends], ends, strict=False))

    def masks_and_biases(q_where, k_where) -> list[tuple[Array, Array | None]]:
        found = []
        for start, end in slices:
            pair = _cut(q_where, start, end), _cut(k_where, 0, end if causal else keys)
            found.append((mask(*pair), None if bias is None else bias(*pair)))
        return found

    def attend(q, k, v, added) -> Array:
        parts = []
        for (start, end), (visible, bias_here) in zip(slices, added, strict=True):
            seen = slice(0, end if causal else keys)
            parts.append(_attend(q[:, :, :, start:end], k[:, :, seen], v[:, :, seen], visible, bias_here, dropout))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=3)

    shared = all(leaf.shape[0] == 1 for leaf in jax.tree.leaves((q_where, k_where)))
    if rows == batch:
        out = attend(q, k, v, masks_and_biases(q_where, k_where))
    else:
        added = masks_and_biases(q_where, k_where) if shared else None
        where = None if shared else jax.tree.map(lambda x: _every_row(x, batch), (q_where, k_where))

        def group(parts):
            q, k, v, where = parts
            return attend(q, k, v, masks_and_biases(*where) if added is None else added)

        groups = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), (q, k, v, where))
        out = jax.lax.map(jax.checkpoint(group, prevent_cse=False), groups).reshape(q.shape)
    return _heads_last(out, q_BTNH)


def _attend(q_BKGTH, k_BKSH, v_BKSH, visible, bias, dropout) -> Array:
    """Softmax attention, float32 [B, K, G, T, H]. Weights are divided by their sum after the product with the values:
    there are fewer of those than scores."""
    scores = _scores(q_BKGTH, k_BKSH, visible, bias)
    top = jax.lax.stop_gradient(scores).max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)
    return _values(_keep(weights, dropout), v_BKSH) / weights.sum(axis=-1, keepdims=True)


def _rows(batch: int, bytes_per_row: int) -> int:
    """How many sequences to take at once: the largest divisor of `batch` whose scores fit the cache, at least 1."""
    fitting = max(1, CACHE_BYTES // bytes_per_row)
    return max(rows for rows in range(1, min(batch, fitting) + 1) if batch % rows == 0)


def _slice_ends(queries: int) -> list[int]:
    """Where the slices of causal attention end."""
    count = max(1, min(CAUSAL_SLICES, queries // CAUSAL_BLOCK))
    return [queries * (i + 1) // count for i in range(count)]


def _cut(where: Where, start: int, end: int) -> Where:
    return jax.tree.map(lambda x: x[:, start:end], where)


def _every_row(x: Array, batch: int) -> Array:
    return jnp.broadcast_to(x, (batch, *x.shape[1:]))


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
        scores = _scores(q_block, k_block, visible_here(at, where), None if bias is None else bias(at, where))
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
