"""Attention: one signature, several implementations.

`naive` is the twin that tests trust, `dense` the same arithmetic in the layout CPUs like, `blockwise` keeps memory
proportional to the length, `fused` is the platform's own (`ops.fused`). Positions (`q_where`, `k_where`) are pytrees of
[B or 1, T] arrays, opaque here; `mask` and `bias` are called on blocks of them. Scores and softmax are float32 whatever
the inputs are.

Shapes: B batch, T query tokens, S key tokens, N heads, K key-value heads, G = N // K, H head width of queries and keys
(values may have another).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.ops.fused import Rows, fused, why_not
from jaxgpt.ops.layout import constrain, divides_time, extent, parts_of_time, platform

MASKED = -1e30  # finite: a padded row sees nothing and must not become NaN
BLOCK = 256  # keys per block of the blockwise implementation, and half its queries
DENSE_UP_TO = 1024  # keys up to which scores of the whole length are cheaper than blocks (measured on CPU)
PIECES = 4  # independent parts of a batch, for cores to work on side by side (on CPU; 2 to 8 are alike)
PIECE_BYTES = 2**20  # float32 scores of a batch up to which it stays in one piece
GROUP_BYTES = 2**23  # float32 scores of a piece beyond which its sequences go one group after the other
CAUSAL_BLOCK = 64  # queries per slice of causal attention, at least; no more than CAUSAL_SLICES of them
CAUSAL_SLICES = 4

Implementation = Literal["naive", "dense", "blockwise", "fused"]
Where = Any  # a pytree of [B or 1, T] arrays
Mask = Callable[[Where, Where], Array]  # -> bool [B or 1, T, S], True where a query may look
Bias = Callable[[Where, Where], Array]  # -> float32 [B or 1, N, T, S]


class Dropout(NamedTuple):
    """Dropout of attention weights."""

    rate: float
    key: Array


class Softmax(NamedTuple):
    """How products of queries and keys become weights.

    scale: factor of the products; None: 1/sqrt(H).
    soft_cap: c in c * tanh(score / c), which bounds scaled products before a bias is added (Gemma 2, arXiv:2408.00118,
        section 2.2).
    sinks_N: a logit per head that takes part in the sum of the softmax and has no value: what attention may spend on
        nothing (Xiao et al. 2023, arXiv:2309.17453, section 3.3, as gpt-oss, arXiv:2508.10925).
    """

    scale: float | None = None
    soft_cap: float | None = None
    sinks_N: Array | None = None

    def capped(self, scores: Array) -> Array:
        return scores if self.soft_cap is None else self.soft_cap * jnp.tanh(scores / self.soft_cap)

    def factor(self, head_width: int) -> float:
        return head_width**-0.5 if self.scale is None else self.scale

    def weights(self, scores_BNTS: Array) -> Array:
        """Softmax over all keys and the sink."""
        if self.sinks_N is None:
            return jax.nn.softmax(scores_BNTS, axis=-1)
        sinks = jnp.broadcast_to(self.sinks_N[None, :, None, None], (*scores_BNTS.shape[:3], 1))
        return jax.nn.softmax(jnp.concatenate([scores_BNTS, sinks], axis=-1), axis=-1)[..., :-1]


PLAIN = Softmax()


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
    rows: Rows | None = None,
    softmax: Softmax = PLAIN,
) -> Array:
    """Softmax attention with scores q.k / sqrt(H) + bias; returns [B, T, N, V] in q's type, V the values' width.

    `rows` says what the opaque mask cannot. It changes no result (but of padded tokens, which see nothing); `dense`
    leaves out what it knows hidden, and `fused` needs to know.

    Without an `implementation` it is `fused` where that can be (`fused.why_not`): on GPUs and TPUs, in 16 bits, of
    whole rows, without a bias, dropout or sinks. Else lengths decide: `dense` while the scores of all pairs are small,
    `blockwise` beyond. So it is, with a warning, where `fused` is asked for and cannot be.
    """
    if implementation in (None, "fused") and not divides_time(q_BTNH.shape[1]):
        more = bias is not None or dropout is not None or softmax.sinks_N is not None
        reason = why_not(q_BTNH, k_BSKH, v_BSKH, rows, softmax.soft_cap, more=more)
        if reason is None and rows is not None:
            return fused(q_BTNH, k_BSKH, v_BSKH, rows, softmax.factor(q_BTNH.shape[-1]), softmax.soft_cap)
        if implementation == "fused":
            _say_once(f"attention: the platform's kernel is left out: {reason}")
    if implementation in (None, "fused"):
        short = k_BSKH.shape[1] <= DENSE_UP_TO or q_BTNH.shape[1] == 1
        implementation = "dense" if short else "blockwise"
    arguments = q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias, dropout
    attend = {"naive": naive, "dense": dense, "blockwise": blockwise}[implementation]
    if divides_time(q_BTNH.shape[1]):
        return _by_parts(attend, *arguments, softmax)
    if attend is dense:
        return dense(*arguments, softmax, causal=rows is not None)
    return attend(*arguments, softmax)


@functools.cache
def _say_once(text: str) -> None:
    logging.getLogger(__name__).warning(text)


def _by_parts(attend, q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias, dropout, softmax) -> Array:
    """On a mesh that divides time: every device has its queries and gathers all keys and values (Dubey et al. 2024,
    arXiv:2407.21783, section 3.3.2), which are small where heads share them. The parts are computed alike, so blocks
    that a mask hides are not skipped: none of the devices could go on before the last one has seen all keys anyway.
    Dropout is drawn for each part."""
    k_BSKH, v_BSKH = (constrain(x, "row", None, "kv_heads", None) for x in (k_BSKH, v_BSKH))
    k_where = jax.tree.map(lambda x: constrain(x, "row", None, ...), k_where)
    parts = jax.tree.map(parts_of_time, (q_BTNH, q_where))

    def one(part, number) -> Array:
        q, where = part
        dropped = None if dropout is None else Dropout(dropout.rate, jax.random.fold_in(dropout.key, number))
        return attend(q, k_BSKH, v_BSKH, where, k_where, mask, bias, dropped, softmax)

    out = jax.vmap(one)(parts, jnp.arange(len(parts[0])))
    return jnp.moveaxis(out, 0, 1).reshape(*q_BTNH.shape[:3], v_BSKH.shape[-1])


def keep(weights: Array, dropout: Dropout | None) -> Array:
    """`weights` after dropout: survivors are scaled up so that the expectation stays."""
    if dropout is None or dropout.rate == 0.0:
        return weights
    kept = jax.random.bernoulli(dropout.key, 1.0 - dropout.rate, weights.shape)
    return jnp.where(kept, weights / (1.0 - dropout.rate), 0.0)


def naive(q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias=None, dropout=None, softmax=PLAIN) -> Array:
    """One einsum after the other, nothing clever: the definition."""
    v_BSNH = jnp.repeat(v_BSKH, q_BTNH.shape[2] // v_BSKH.shape[2], axis=2).astype(jnp.float32)
    weights_BNTS = keep(attention_map(q_BTNH, k_BSKH, q_where, k_where, mask, bias, softmax), dropout)
    return jnp.einsum("BNTS,BSNH->BTNH", weights_BNTS, v_BSNH).astype(q_BTNH.dtype)


def attention_map(q_BTNH, k_BSKH, q_where, k_where, mask, bias=None, softmax=PLAIN) -> Array:
    """The weights with which values are summed, float32 [B, N, T, S]: what `naive` computes, to look at."""
    groups = q_BTNH.shape[2] // k_BSKH.shape[2]
    k_BSNH = jnp.repeat(k_BSKH, groups, axis=2).astype(jnp.float32)
    scores = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH.astype(jnp.float32), k_BSNH) * softmax.factor(q_BTNH.shape[-1])
    scores = softmax.capped(scores)
    if bias is not None:
        scores = scores + bias(q_where, k_where)
    scores = jnp.where(mask(q_where, k_where)[:, None], scores, MASKED)
    return softmax.weights(scores)


def _scores(q_BKGTH: Array, k_BKSH: Array, visible: Array, bias: Array | None, softmax: Softmax) -> Array:
    """float32 scores [B, K, G, T, S] of one block, masked; the scale is already in q."""
    batch, kv_heads, groups, queries, width = q_BKGTH.shape
    flat = q_BKGTH.reshape(batch, kv_heads, groups * queries, width)
    scores = jnp.einsum("BKXH,BKSH->BKXS", flat, k_BKSH, preferred_element_type=jnp.float32)
    scores = softmax.capped(scores.reshape(batch, kv_heads, groups, queries, k_BKSH.shape[2]))
    if bias is not None:
        scores = scores + bias.reshape(bias.shape[0], kv_heads, groups, *bias.shape[2:])
    return jnp.where(visible[:, None, None], scores, MASKED)


def _values(weights_BKGTS: Array, v_BKSH: Array) -> Array:
    """Weighted values, float32 [B, K, G, T, H]."""
    batch, kv_heads, groups, queries, keys = weights_BKGTS.shape
    flat = weights_BKGTS.reshape(batch, kv_heads, groups * queries, keys).astype(v_BKSH.dtype)
    out = jnp.einsum("BKXS,BKSH->BKXH", flat, v_BKSH, preferred_element_type=jnp.float32)
    return out.reshape(batch, kv_heads, groups, queries, v_BKSH.shape[-1])


def _heads_first(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, softmax: Softmax) -> tuple[Array, Array, Array]:
    """Heads before time, so that every product is a batched matrix product over contiguous memory; q is scaled."""
    batch, queries, heads, width = q_BTNH.shape
    kv_heads = k_BSKH.shape[2]
    q_BNTH = jnp.swapaxes(q_BTNH * jnp.asarray(softmax.factor(width), q_BTNH.dtype), 1, 2)
    q_BKGTH = q_BNTH.reshape(batch, kv_heads, heads // kv_heads, queries, width)
    return q_BKGTH, jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)


def _sinks(softmax: Softmax, like_BKGTS: Array) -> Array | None:
    """The sinks as [1, K, G, 1, 1]."""
    if softmax.sinks_N is None:
        return None
    return softmax.sinks_N.astype(jnp.float32).reshape(1, *like_BKGTS.shape[1:3], 1, 1)


def _heads_last(out_BKGTH: Array, like: Array) -> Array:
    batch, kv_heads, groups, queries, width = out_BKGTH.shape
    return jnp.swapaxes(out_BKGTH.reshape(batch, kv_heads * groups, queries, width), 1, 2).astype(like.dtype)


def dense(
    q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias=None, dropout=None, softmax=PLAIN, causal=False
) -> Array:
    """All scores of a sequence at once, heads first.

    CPUs want three things more. The batch is cut into a few pieces that do not depend on each other, so that cores need
    not wait for each other after every operation; long sequences of a piece go one group after the other, with scores
    computed again in the backward pass; causal scores are cut into slices of queries, each with the keys up to its
    end. What all sequences share of mask and bias is computed once.
    """
    q, k, v = _heads_first(q_BTNH, k_BSKH, v_BSKH, softmax)
    batch, queries, keys = q.shape[0], q.shape[3], k.shape[2]
    alone = extent("token") == 1  # on a mesh pieces of a batch would have to be gathered
    whole = platform() != "cpu" or dropout is not None or not alone
    ends = _slice_ends(queries) if causal and queries == keys and not whole else [queries]
    starts = [0, *ends[:-1]]
    seen = ends if causal else [keys]  # how many keys each slice of queries sees

    def masks_and_biases(q_where, k_where) -> list[tuple[Array, Array | None]]:
        pairs = [
            (_cut(q_where, start, end), _cut(k_where, 0, count))
            for start, end, count in zip(starts, ends, seen, strict=True)
        ]
        return [(mask(*pair), None if bias is None else bias(*pair)) for pair in pairs]

    shared = all(leaf.shape[0] == 1 for leaf in jax.tree.leaves((q_where, k_where)))
    added = masks_and_biases(q_where, k_where) if shared else None
    where = None if shared else jax.tree.map(lambda x: _every_row(x, batch), (q_where, k_where))

    def attend(sequences) -> Array:
        q, k, v, where = sequences
        parts = []
        for start, end, count, pair in zip(starts, ends, seen, added or masks_and_biases(*where), strict=True):
            parts.append(_attend(q[:, :, :, start:end], k[:, :, :count], v[:, :, :count], *pair, dropout, softmax))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=3)

    sequences = q, k, v, where
    out = attend(sequences) if whole else _in_pieces(attend, sequences, q_BTNH.shape[2] * queries * keys * 4)
    return _heads_last(out, q_BTNH)


def _in_pieces(attend: Callable[[Any], Array], sequences: Any, bytes_each: int) -> Array:
    """`attend` of a batch of `sequences` (a pytree of [B, ...]) whose scores take `bytes_each`, piece by piece."""
    batch = len(jax.tree.leaves(sequences)[0])
    pieces = min(PIECES, batch) if batch * bytes_each > PIECE_BYTES else 1
    ends = [batch * (i + 1) // pieces for i in range(pieces)]
    out = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        piece = jax.tree.map(lambda x, start=start, end=end: x[start:end], sequences)
        rows = _group_rows(end - start, bytes_each)
        if rows == end - start:
            out.append(attend(piece))
        else:
            groups = jax.tree.map(lambda x, rows=rows: x.reshape(-1, rows, *x.shape[1:]), piece)
            done = jax.lax.map(jax.checkpoint(attend, prevent_cse=False), groups)
            out.append(done.reshape(end - start, *done.shape[2:]))
    return out[0] if pieces == 1 else jnp.concatenate(out)


def _group_rows(count: int, bytes_each: int) -> int:
    """How many of `count` sequences to take at once: the largest divisor whose scores fit, at least 1."""
    fitting = max(1, GROUP_BYTES // bytes_each)
    return max(rows for rows in range(1, min(count, fitting) + 1) if count % rows == 0)


def _attend(q_BKGTH, k_BKSH, v_BKSH, visible, bias, dropout, softmax) -> Array:
    """Softmax attention, float32 [B, K, G, T, H]. Weights are divided by their sum after the product with the values:
    there are fewer of those than scores."""
    scores, sinks = _scores(q_BKGTH, k_BKSH, visible, bias, softmax), _sinks(softmax, q_BKGTH)
    top = jax.lax.stop_gradient(scores).max(axis=-1, keepdims=True)
    if sinks is not None:
        top = jnp.maximum(top, jax.lax.stop_gradient(sinks))
    weights = jnp.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + jnp.exp(sinks - top)
    return _values(keep(weights, dropout), v_BKSH) / total


def _slice_ends(queries: int) -> list[int]:
    """Where the slices of causal attention end."""
    count = max(1, min(CAUSAL_SLICES, queries // CAUSAL_BLOCK))
    return [queries * (i + 1) // count for i in range(count)]


def _cut(where: Where, start: int, end: int) -> Where:
    return jax.tree.map(lambda x: x[:, start:end], where)


def _every_row(x: Array, batch: int) -> Array:
    return jnp.broadcast_to(x, (batch, *x.shape[1:]))


def blockwise(
    q_BTNH, k_BSKH, v_BSKH, q_where, k_where, mask, bias=None, dropout=None, softmax=PLAIN, block: int = BLOCK
) -> Array:
    """Online softmax over blocks of queries and keys (Rabe & Staats 2021, arXiv:2112.05682; FlashAttention,
    arXiv:2205.14135): memory grows with T, not T * S. Blocks that the mask hides whole are skipped.
    """
    queries, keys = q_BTNH.shape[1], k_BSKH.shape[1]
    q, k, v = _heads_first(q_BTNH, k_BSKH, v_BSKH, softmax)
    size_q, size_k = min(2 * block, queries), min(block, keys)
    q_blocks = in_blocks(q, 3, size_q), where_in_blocks(q_where, size_q)
    k_blocks = in_blocks(k, 2, size_k), in_blocks(v, 2, size_k), where_in_blocks(k_where, size_k)
    numbers = jnp.arange(k_blocks[0].shape[0])
    present = in_blocks(jnp.arange(keys)[None], 1, size_k, fill=keys) < keys  # [blocks, 1, size_k]; padding is no key

    def one_query_block(_, block_q):
        q_block, at, number = block_q
        drop_key = None if dropout is None else jax.random.fold_in(dropout.key, number)
        attend = jax.checkpoint(functools.partial(_key_block, q_block, at, mask, bias, dropout, drop_key, softmax))

        def step(carry, block_k):
            top, total, out = carry
            new_top, more, values = attend(top, block_k)
            shrink = jnp.exp(top - new_top)
            return (new_top, total * shrink + more, out * shrink[..., None] + values), None

        shape, sinks = q_block.shape[:-1], _sinks(softmax, q_block)
        if sinks is None:
            top, total = jnp.full(shape, MASKED), jnp.zeros(shape)
        else:  # the first thing seen: its weight is 1 and its value nothing
            sinks = jnp.broadcast_to(sinks[..., 0], shape)
            top = jax.lax.stop_gradient(sinks)
            total = jnp.exp(sinks - top)
        start = (top, total, jnp.zeros((*shape, v.shape[-1]), jnp.float32))
        (_, total, out), _ = jax.lax.scan(step, start, (*k_blocks, present, numbers))
        return None, out / jnp.maximum(total, 1e-30)[..., None]

    # Two numbers per query and key block are kept for the gradient. Where these are more than the query itself, so that
    # memory would begin to grow with T * S, they are computed again: a forward pass more.
    each = one_query_block if 2 * len(numbers) <= q.shape[-1] else jax.checkpoint(one_query_block)
    _, out = jax.lax.scan(each, None, (*q_blocks, jnp.arange(q_blocks[0].shape[0])))
    out = jnp.moveaxis(out, 0, 3).reshape(*q.shape[:3], -1, v.shape[-1])[:, :, :, :queries]
    return _heads_last(out, q_BTNH)


def _key_block(q_block, at, mask, bias, dropout, drop_key, softmax, top, block_k):
    """What one key block adds to a query block whose largest score so far is `top`: the largest score with it, and the
    sum of weights and of weighted values relative to that; nothing if all of it is hidden.

    The result of the whole does not depend on what weights are relative to, so no gradient goes through it. That is
    why the running sums, which are large, need not be kept for every pair of blocks.
    """
    k_block, v_block, where, present, number = block_k

    def visible_here(q_at, k_at):
        return mask(q_at, k_at) & present[:, None]

    def attend(top):
        added = None if bias is None else bias(at, where)
        scores = _scores(q_block, k_block, visible_here(at, where), added, softmax)
        new_top = jnp.maximum(top, jax.lax.stop_gradient(scores).max(-1))
        # A row that has seen nothing yet has top = MASKED: exp(MASKED - MASKED) would count hidden keys as seen.
        weights = jnp.exp(scores - jnp.maximum(new_top, MASKED / 2)[..., None])
        dropped = weights
        if dropout is not None:
            dropped = keep(weights, Dropout(dropout.rate, jax.random.fold_in(drop_key, number)))
        return new_top, weights.sum(-1), _values(dropped, v_block)

    def skip(top):
        return top, jnp.zeros(top.shape), jnp.zeros((*top.shape, v_block.shape[-1]))

    return jax.lax.cond(visible_here(at, where).any(), attend, skip, jax.lax.stop_gradient(top))


def in_blocks(x: Array, axis: int, size: int, fill: int = 0) -> Array:
    """`x` cut along `axis` into blocks of `size`, stacked in front; the last one is padded with `fill`."""
    missing = -x.shape[axis] % size
    widths = [(0, missing if i == axis else 0) for i in range(x.ndim)]
    padded = jnp.pad(x, widths, constant_values=fill)
    shape = (*x.shape[:axis], padded.shape[axis] // size, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(padded.reshape(shape), axis, 0)


def where_in_blocks(where: Where, size: int) -> Where:
    return jax.tree.map(lambda x: in_blocks(x, 1, size), where)
