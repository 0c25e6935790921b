"""The platform's own attention kernels, where they can do the job.

On NVIDIA's GPUs cuDNN's flash attention, on TPUs JAX's splash attention (Pallas). Both keep no scores and skip blocks
that are hidden. They know masks by name only, so they serve whole rows (`Rows`), and they add no bias: encodings that
need one go blockwise.

Shapes: B batch, T tokens, N heads, K key-value heads, H head width.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from jaxgpt.ops.layout import PLACES, extent, platform

LANES = 128  # of a TPU: its blocks are multiples
BLOCK = 512  # tokens per block of the TPU's kernel, at most
CUDNN_WIDTH = 128  # widest head whose gradient cuDNN computes on all of its GPUs


class Rows(NamedTuple):
    """What an opaque mask cannot say of itself: queries and keys are the tokens of whole rows, in order, and each query
    sees those of its own document that are not to its right, of these the last `window`.

    segment: int [B or 1, T], the document of each token, 0 for padding; None: every row is one document.
    """

    segment: Array | None = None
    window: int | None = None


def why_not(
    q_BTNH: Array, k_BTKH: Array, v_BTKH: Array, rows: Rows | None, soft_cap: float | None, *, more: bool
) -> str | None:
    """What keeps the platform's kernel from computing this attention; None: nothing. `more`: whether something is to be
    done that no kernel does: a bias, dropout, sinks."""
    where, length, width = platform(), q_BTNH.shape[1], q_BTNH.shape[-1]
    if where not in ("gpu", "tpu"):
        return f"there is none for {where}"
    if more:
        return "it has no bias, no dropout and no sinks"
    if rows is None:
        return "it needs whole rows, not a cache"
    if q_BTNH.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it is for 16-bit numbers, not {q_BTNH.dtype}"
    if v_BTKH.shape[-1] != width:
        return "values are as wide as keys there"
    if where == "gpu":
        if rows.segment is not None:
            return "cuDNN would need the mask of packed documents in full"
        if soft_cap is not None:
            return "cuDNN has no soft cap"
        return None if width % 8 == 0 and width <= CUDNN_WIDTH else f"heads of width {width} are not cuDNN's"
    if length % LANES:
        return f"{length} tokens are no multiple of {LANES}"
    uneven = q_BTNH.shape[0] % extent("row") or k_BTKH.shape[2] % extent("kv_heads")
    return "the mesh does not divide rows or heads evenly" if uneven else None


def fused(
    q_BTNH: Array, k_BTKH: Array, v_BTKH: Array, rows: Rows, scale: float, soft_cap: float | None = None
) -> Array:
    """Softmax attention by the platform's kernel, [B, T, N, H] in q's type; where `why_not` has nothing against it."""
    if platform() == "gpu":
        window = None if rows.window is None else (rows.window - 1, 0)
        return jax.nn.dot_product_attention(
            q_BTNH, k_BTKH, v_BTKH, scale=scale, is_causal=True, local_window_size=window, implementation="cudnn"
        )
    attend = functools.partial(splash, window=rows.window, scale=scale, soft_cap=soft_cap)
    segment = None if rows.segment is None else jnp.broadcast_to(rows.segment, q_BTNH.shape[:2])
    if extent("row") * extent("heads") == 1:
        return attend(q_BTNH, k_BTKH, v_BTKH, segment)
    # XLA does not know how to divide a kernel that is not its own.
    heads, tokens = PartitionSpec(PLACES["row"], None, PLACES["heads"]), PartitionSpec(PLACES["row"])
    specs = (heads, heads, heads) if segment is None else (heads, heads, heads, tokens)
    arrays: Any = (q_BTNH, k_BTKH, v_BTKH) if segment is None else (q_BTNH, k_BTKH, v_BTKH, segment)
    return jax.shard_map(attend, in_specs=specs, out_specs=heads, check_vma=False)(*arrays)


def splash(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    segment_BT: Array | None = None,
    *,
    window: int | None = None,
    scale: float,
    soft_cap: float | None = None,
    interpret: bool = False,
) -> Array:
    """JAX's splash attention for TPUs, causal. `interpret`: step by step on any platform, for tests."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels

    kernel = _kernel(q_BTNH.shape[1], q_BTNH.shape[2], window, soft_cap, interpret)
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BTNH * jnp.asarray(scale, q_BTNH.dtype), k_BTKH, v_BTKH))
    if segment_BT is None:
        out = jax.vmap(kernel)(q, k, v)
    else:
        out = jax.vmap(kernel)(q, k, v, kernels.SegmentIds(segment_BT, segment_BT))
    return jnp.swapaxes(out, 1, 2).astype(q_BTNH.dtype)


def _kernel(length: int, heads: int, window: int | None, soft_cap: float | None, interpret: bool) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = (length, length)
    mask = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), 0)
    block = next(size for size in (BLOCK, 2 * LANES, LANES) if length % size == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes: Any = {f"block_{name}": block for name in names}
    return kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=kernels.BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=soft_cap,
        interpret=interpret,
    )
