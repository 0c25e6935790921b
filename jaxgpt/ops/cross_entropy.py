"""Cross entropy of a linear head, fused: the logits of all tokens never exist at once.

Shapes: M tokens (flattened), D model width, V vocabulary.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.ops.layout import by_device, constrain, extent

CHUNK_BYTES = 64 * 2**20  # float32 logits held at a time, at most
LEAST_CHUNKS = 8  # of what does not fit into one: smaller ones are as fast, down to where W's gradient outweighs them


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: cap(scale * (x W + b)), where cap(z) = soft_cap * tanh(z / soft_cap)."""

    matrix_DV: Array
    bias_V: Array | None = None
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})
    soft_cap: float | None = dataclasses.field(default=None, metadata={"static": True})

    def logits(self, x_MD: Array) -> Array:
        """float32 [M, V]."""
        logits = jnp.dot(x_MD, self.matrix_DV.astype(x_MD.dtype), preferred_element_type=jnp.float32)
        if self.bias_V is not None:
            logits = logits + self.bias_V.astype(jnp.float32)[None]
        if self.scale != 1.0:
            logits = self.scale * logits
        return logits if self.soft_cap is None else self.soft_cap * jnp.tanh(logits / self.soft_cap)

    def slope(self, logits_MV: Array) -> Array | float:
        """The derivative of capped and scaled logits by x W + b."""
        return self.scale if self.soft_cap is None else self.scale * (1 - jnp.square(logits_MV / self.soft_cap))


def token_losses(logits: Array, targets: Array) -> Array:
    """Negative log-likelihood in nats of `targets [...]` under float32 softmax of `logits [..., V]`."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def fused_by_device(x_MD: Array, head: Head, targets_M: Array, weights_M: Array) -> Array:
    """`fused`, of every device's tokens on their own where a mesh divides them: chunks of all tokens would gather them.
    Tokens are in the order of `layout.flatten_tokens`."""
    if extent("token") == 1:
        return fused(x_MD, head, targets_M, weights_M)
    return _fused_parts(by_device(x_MD), head, by_device(targets_M), by_device(weights_M))


def naive(x_MD: Array, head: Head, targets_M: Array, weights_M: Array) -> Array:
    """Sum over tokens of weight times negative log-likelihood: the twin that tests trust."""
    return jnp.sum(weights_M * token_losses(head.logits(x_MD.astype(jnp.float32)), targets_M))


@jax.custom_vjp
def fused(x_MD: Array, head: Head, targets_M: Array, weights_M: Array) -> Array:
    """The same sum, a float32 scalar, in chunks of tokens; gradients to `x_MD` and `head` only.

    With gradients the forward pass computes them while a chunk's logits are at hand, so no logits are kept and none
    are computed twice.
    """
    head = _gathered(head, x_MD.dtype)

    def chunk_loss(total, chunk):
        x, targets, weights = chunk
        return total + jnp.sum(weights * token_losses(head.logits(x), targets)), None

    total, _ = jax.lax.scan(chunk_loss, jnp.float32(0), _chunks(x_MD, head, targets_M, weights_M))
    return total


def _gathered(head: Head, dtype: jnp.dtype) -> Head:
    """The head as products use it, put together once for all chunks where a mesh divides the model's width."""
    return dataclasses.replace(head, matrix_DV=constrain(head.matrix_DV.astype(dtype), None, "vocab"))


def _chunks(x_MD: Array, head: Head, targets_M: Array, weights_M: Array) -> tuple[Array, Array, Array]:
    """The tokens cut into equal chunks whose logits fit; padding tokens have weight 0."""
    tokens = x_MD.shape[0]
    count = max(1, -(-tokens * head.matrix_DV.shape[1] * 4 // CHUNK_BYTES))
    count = max(count, LEAST_CHUNKS) if count > 1 else 1
    size = -(-tokens // count)
    missing = count * size - tokens

    def cut(array: Array) -> Array:
        padded = jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array
        return padded.reshape(count, size, *array.shape[1:])

    return cut(x_MD), cut(targets_M), cut(weights_M)


def _forward(x_MD, head, targets_M, weights_M):
    like, head = head, _gathered(head, x_MD.dtype)
    matrix_DV = head.matrix_DV

    def chunk_loss(carry, chunk):
        total, matrix_gradient, bias_gradient = carry
        x, targets, weights = chunk
        logits = head.logits(x)
        top = jnp.max(logits, axis=-1, keepdims=True)
        exponentials = jnp.exp(logits - top)
        sums = jnp.sum(exponentials, axis=-1, keepdims=True)
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1)
        total += jnp.sum(weights * (jnp.log(sums) + top - chosen)[:, 0])
        hit = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == targets[:, None]
        gradient = (exponentials / sums - hit) * weights[:, None] * head.slope(logits)
        if bias_gradient is not None:
            bias_gradient += gradient.sum(axis=0)
        gradient = gradient.astype(x.dtype)
        x_gradient = jnp.dot(gradient, matrix_DV.T, preferred_element_type=jnp.float32).astype(x.dtype)
        matrix_gradient += jnp.dot(x.T, gradient, preferred_element_type=jnp.float32)
        return (total, matrix_gradient, bias_gradient), x_gradient

    bias = None if head.bias_V is None else jnp.zeros(head.bias_V.shape, jnp.float32)
    start = (jnp.float32(0), jnp.zeros(matrix_DV.shape, jnp.float32), bias)
    sums, x_gradient = jax.lax.scan(chunk_loss, start, _chunks(x_MD, head, targets_M, weights_M))
    total, matrix_gradient, bias_gradient = sums
    x_gradient = x_gradient.reshape(-1, x_MD.shape[1])[: x_MD.shape[0]]
    # A tied head is a transposed embedding: without the barrier XLA swaps the product's operands instead of turning its
    # result, and a product with V rows and D columns takes CPUs twice as long as one with D rows and V columns.
    matrix_gradient = jax.lax.optimization_barrier(matrix_gradient)
    gradients = dataclasses.replace(head, matrix_DV=matrix_gradient, bias_V=bias_gradient)
    return total, (x_gradient, jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, like))


def _backward(gradients, scale):
    x_gradient, head_gradient = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)
    return x_gradient, head_gradient, None, None


fused.defvjp(_forward, _backward)


# ------------------------------------------------------------------------------------------------------------ on a mesh


@jax.custom_vjp
def _fused_parts(x_PMD: Array, head: Head, targets_PM: Array, weights_PM: Array) -> Array:
    """`fused` of P parts, one on each device, together."""
    return jax.vmap(fused, in_axes=(0, None, 0, 0))(x_PMD, head, targets_PM, weights_PM).sum()


def _forward_parts(x_PMD, head, targets_PM, weights_PM):
    of_each = jax.vmap(_forward, in_axes=(0, None, 0, 0))
    totals, (x_gradient, head_gradients) = of_each(x_PMD, head, targets_PM, weights_PM)
    # Every device has a gradient of the whole matrix. Its parts first go to where they lie, and are added there: half
    # of what it would take to add all of them everywhere. (Said of both places, or XLA moves them chunk by chunk.)
    whole = constrain(head_gradients.matrix_DV, "token", None, "vocab")
    placed = constrain(whole, "copy", "embed", "vocab")
    matrix = constrain(placed.sum(axis=0), "embed", "vocab")
    bias = None if head.bias_V is None else head_gradients.bias_V.sum(axis=0)
    return totals.sum(), (x_gradient, dataclasses.replace(head_gradients, matrix_DV=matrix, bias_V=bias))


_fused_parts.defvjp(_forward_parts, _backward)
