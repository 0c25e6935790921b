"""Computes each fast path and its naive twin on JAX's first device, and prints what it found as JSON."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from jaxgpt.nn.mixer.base import Mask
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import PositionDims, Positions
from jaxgpt.ops import attention, cross_entropy
from jaxgpt.ops.cross_entropy import Head

T, N, K, H = 256, 4, 2, 64
PRECISIONS = {  # types of what goes in, and how products of float32 are computed
    "float32": (jnp.float32, "highest"),
    "float32, default precision": (jnp.float32, None),
    "bfloat16": (jnp.bfloat16, None),
}
FORMS = {
    "dense": functools.partial(attention.dense, causal=True),
    "blockwise": functools.partial(attention.blockwise, block=64),
}


def draw(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def worst(found, wanted):
    """The largest difference relative to the largest number, over all arrays; NaN where one has any."""
    errors = []
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        errors.append(np.abs(one - other).max() / np.abs(other).max())
    return float(np.max(errors))


def compared(fast, naive, arrays, precision):
    """Of a function's results and their gradients; the naive one in float32 of the same, already rounded, numbers."""

    def both(form, arrays):
        def loss(arrays):
            out = form(*arrays).astype(jnp.float32)
            return (out * draw(9, *out.shape)).sum(), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
        return out, gradients

    with jax.default_matmul_precision(precision):
        found = both(fast, arrays)
    with jax.default_matmul_precision("highest"):
        wanted = both(naive, jax.tree.map(lambda x: x.astype(jnp.float32), arrays))
    return worst(found, wanted)


def attend(form, where, mask, bias):
    return lambda q, k, v: form(q, k, v, where, where, mask, bias)


def main():
    alibi = AlibiConfig().make(PositionDims(width=N * H, head_dim=H, num_heads=N, train_length=T), jax.random.key(0))
    segments = jnp.asarray([[1] * (T // 2 - 9) + [2] * (T // 2 + 9), [1] * T])
    cases = {
        "causal": (Positions.of(jnp.zeros((2, T))), Mask(), None),
        "window, alibi": (Positions.of(jnp.zeros((2, T))), Mask(window=100), alibi.bias),
        "documents": (Positions.packed(segments), Mask(), None),
    }
    errors = {}
    for name, (dtype, precision) in PRECISIONS.items():
        qkv = draw(0, 2, T, N, H, dtype=dtype), draw(1, 2, T, K, H, dtype=dtype), draw(2, 2, T, K, H, dtype=dtype)
        for case, arguments in cases.items():
            naive = attend(attention.naive, *arguments)
            for form, fast in FORMS.items():
                errors[f"{form} attention, {case}: {name}"] = compared(attend(fast, *arguments), naive, qkv, precision)
        targets, weights = jnp.arange(T) * 7 % 1000, jnp.ones(T)

        def loss(form, x, matrix, targets=targets, weights=weights):
            return form(x, Head(matrix), targets, weights)

        hidden = draw(3, T, H, dtype=dtype), draw(4, H, 1000, dtype=dtype) * jnp.asarray(H**-0.5, dtype)
        forms = (functools.partial(loss, form) for form in (cross_entropy.fused, cross_entropy.naive))
        errors[f"cross entropy: {name}"] = compared(*forms, hidden, precision)
    device = jax.devices()[0]
    found = {"platform": device.platform, "count": jax.device_count(), "errors": errors}
    print(json.dumps({**found, "memory": device.memory_stats()}))


if __name__ == "__main__":
    main()
