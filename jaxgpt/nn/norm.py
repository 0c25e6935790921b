"""Normalisation: the slot and both its kinds. Statistics are float32 whatever the activations are."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.nn.params import constant
from jaxgpt.registry import register, slot


@slot("norm", package="jaxgpt.nn.norm")
@dataclasses.dataclass(frozen=True)
class NormConfig:
    """How activations are normalised."""

    epsilon: float = 1e-5

    def __post_init__(self):
        if self.epsilon <= 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon}")

    def make(self, width: int, bias: bool) -> Norm:
        """A norm over the last dimension, `width` wide; `bias` only where the kind has one."""
        raise TypeError(f"{type(self).__qualname__} must define make()")


class Norm(nnx.Module):
    """Normalises over the last dimension: x [..., width] -> the same shape and type."""

    def __call__(self, x: Array) -> Array:
        raise AssertionError("every norm defines __call__")


@register("layernorm")
@dataclasses.dataclass(frozen=True)
class LayerNormConfig(NormConfig):
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450, equation 4)."""

    def make(self, width: int, bias: bool) -> LayerNorm:
        return LayerNorm(width, self.epsilon, bias)


class LayerNorm(Norm):
    def __init__(self, width: int, epsilon: float, bias: bool):
        self.epsilon = epsilon
        self.scale = constant(1.0, (width,), (None,))
        self.bias = constant(0.0, (width,), (None,)) if bias else None

    def __call__(self, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.epsilon) * _along_last(self.scale[...], x)
        if self.bias is not None:
            y = y + _along_last(self.bias[...], x)
        return y.astype(x.dtype)


@register("rmsnorm")
@dataclasses.dataclass(frozen=True)
class RMSNormConfig(NormConfig):
    """Root mean square normalisation, no centring, no bias (Zhang & Sennrich 2019, arXiv:1910.07467, equation 4)."""

    def make(self, width: int, bias: bool) -> RMSNorm:
        return RMSNorm(width, self.epsilon)


class RMSNorm(Norm):
    def __init__(self, width: int, epsilon: float):
        self.epsilon = epsilon
        self.scale = constant(1.0, (width,), (None,))

    def __call__(self, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(x32 * x32, axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(mean_square + self.epsilon) * _along_last(self.scale[...], x)).astype(x.dtype)


def _along_last(vector: Array, like: Array) -> Array:
    """`vector [width]` with leading dimensions of 1, so that broadcasting is said and not silent."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
