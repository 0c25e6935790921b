"""Cross entropy of a linear head, fused: the logits of all tokens never exist at once.

Shapes: M tokens (flattened), D model width, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

CHUNK_BYTES = 64 * 2**20  # float32 logits held at a time


def token_losses(logits: Array, targets: Array) -> Array:
    """Negative log-likelihood in nats of `targets [...]` under float32 softmax of `logits [..., V]`."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def naive(x_MD: Array, head_DV: Array, targets_M: Array, weights_M: Array) -> Array:
    """Sum over tokens of weight times negative log-likelihood: the twin that tests trust."""
    logits_MV = x_MD.astype(jnp.float32) @ head_DV.astype(jnp.float32)
    return jnp.sum(weights_M * token_losses(logits_MV, targets_M))


@jax.custom_vjp
def fused(x_MD: Array, head_DV: Array, targets_M: Array, weights_M: Array) -> Array:
    """The same sum, a float32 scalar, in chunks of tokens; gradients to `x_MD` and `head_DV` only.

    With gradients the forward pass computes them while a chunk's logits are at hand, so no logits are kept and none
    are computed twice.
    """

    def chunk_loss(total, chunk):
        x, targets, weights = chunk
        return total + jnp.sum(weights * token_losses(_logits(x, head_DV), targets)), None

    total, _ = jax.lax.scan(chunk_loss, jnp.float32(0), _chunks(x_MD, head_DV, targets_M, weights_M))
    return total


def _logits(x_MD: Array, head_DV: Array) -> Array:
    return jnp.dot(x_MD, head_DV.astype(x_MD.dtype), preferred_element_type=jnp.float32)


def _chunks(x_MD: Array, head_DV: Array, targets_M: Array, weights_M: Array) -> tuple[Array, Array, Array]:
    """The tokens cut into equal chunks whose logits fit; padding tokens have weight 0."""
    tokens = x_MD.shape[0]
    count = max(1, -(-tokens * head_DV.shape[1] * 4 // CHUNK_BYTES))
    size = -(-tokens // count)
    missing = count * size - tokens

    def cut(array: Array) -> Array:
        padded = jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array
        return padded.reshape(count, size, *array.shape[1:])

    return cut(x_MD), cut(targets_M), cut(weights_M)


def _forward(x_MD, head_DV, targets_M, weights_M):
    head = head_DV.astype(x_MD.dtype)

    def chunk_loss(carry, chunk):
        total, head_gradient = carry
        x, targets, weights = chunk
        logits = _logits(x, head)
        top = jnp.max(logits, axis=-1, keepdims=True)
        exponentials = jnp.exp(logits - top)
        sums = jnp.sum(exponentials, axis=-1, keepdims=True)
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1)
        total += jnp.sum(weights * (jnp.log(sums) + top - chosen)[:, 0])
        hit = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == targets[:, None]
        gradient = (exponentials / sums - hit) * weights[:, None]
        gradient = gradient.astype(x.dtype)
        x_gradient = jnp.dot(gradient, head.T, preferred_element_type=jnp.float32).astype(x.dtype)
        head_gradient += jnp.dot(x.T, gradient, preferred_element_type=jnp.float32)
        return (total, head_gradient), x_gradient

    start = (jnp.float32(0), jnp.zeros(head_DV.shape, jnp.float32))
    (total, head_gradient), x_gradient = jax.lax.scan(chunk_loss, start, _chunks(x_MD, head_DV, targets_M, weights_M))
    x_gradient = x_gradient.reshape(-1, x_MD.shape[1])[: x_MD.shape[0]]
    # A tied head is a transposed embedding: without the barrier XLA swaps the product's operands instead of turning its
    # result, and a product with V rows and D columns takes CPUs twice as long as one with D rows and V columns.
    head_gradient = jax.lax.optimization_barrier(head_gradient)
    return total, (x_gradient, head_gradient.astype(head_DV.dtype))


def _backward(gradients, scale):
    x_gradient, head_gradient = gradients
    return x_gradient * scale.astype(x_gradient.dtype), head_gradient * scale.astype(head_gradient.dtype), None, None


fused.defvjp(_forward, _backward)
