"""Normalisation: the slot and both its kinds. Statistics are float32 whatever the activations are."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.config import added_later
from jaxgpt.nn.params import constant
from jaxgpt.registry import register, slot

Gain = Literal["learned", "one_plus", "none"]
"""What multiplies normalised activations: w, 1 + w with w from 0 on, or nothing."""


@slot("norm", package="jaxgpt.nn.norm")
@dataclasses.dataclass(frozen=True)
class NormConfig:
    """How activations are normalised.

    gain: `learned`, from 1 on; `one_plus`: 1 + w with w from 0 on, which weight decay draws to 1 (Gemma,
        arXiv:2403.08295); `none`: nothing is learned (OLMo, arXiv:2402.00838, section 2.1).
    """

    epsilon: float = 1e-5
    gain: Gain = added_later("learned")

    def __post_init__(self):
        if self.epsilon <= 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon}")

    def make(self, width: int, bias: bool, heads: int | None = None) -> Norm:
        """A norm over the last dimension, `width` wide, with a gain for each of `heads`, the dimension before it.
        `bias`: whether linear maps have one, for kinds that go by it."""
        raise TypeError(f"{type(self).__qualname__} must define make()")


class Norm(nnx.Module):
    """Normalises over the last dimension: x [..., width] -> the same shape and type. Kinds define `normalised`."""

    def __init__(self, epsilon: float, gain: Gain, bias: bool, shape: tuple[int, ...]):
        self.epsilon, self.gain = epsilon, gain
        axes = (None,) * len(shape)
        start = 0.0 if gain == "one_plus" else 1.0
        self.scale = None if gain == "none" else constant(start, shape, axes)
        self.bias = constant(0.0, shape, axes) if bias else None

    def __call__(self, x: Array) -> Array:
        y = self.normalised(x.astype(jnp.float32))
        if self.scale is not None:
            scale = self.scale[...] if self.gain == "learned" else 1 + self.scale[...]
            y = y * _along_last(scale, x)
        if self.bias is not None:
            y = y + _along_last(self.bias[...], x)
        return y.astype(x.dtype)

    def normalised(self, x32: Array) -> Array:
        """float32 `x` without gain and bias."""
        raise AssertionError("every norm defines normalised")


@register("layernorm")
@dataclasses.dataclass(frozen=True)
class LayerNormConfig(NormConfig):
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450, equation 4).

    bias: whether something is added; None: as the model's linear maps.
    """

    bias: bool | None = added_later(None)

    def make(self, width: int, bias: bool, heads: int | None = None) -> LayerNorm:
        own = bias if self.bias is None else self.bias
        return LayerNorm(self.epsilon, self.gain, own, _shape(width, heads))


class LayerNorm(Norm):
    def normalised(self, x32: Array) -> Array:
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + self.epsilon)


@register("rmsnorm")
@dataclasses.dataclass(frozen=True)
class RMSNormConfig(NormConfig):
    """Root mean square normalisation, no centring, no bias (Zhang & Sennrich 2019, arXiv:1910.07467, equation 4)."""

    def make(self, width: int, bias: bool, heads: int | None = None) -> RMSNorm:
        return RMSNorm(self.epsilon, self.gain, False, _shape(width, heads))


class RMSNorm(Norm):
    def normalised(self, x32: Array) -> Array:
        return x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.epsilon)


def _shape(width: int, heads: int | None) -> tuple[int, ...]:
    return (width,) if heads is None else (heads, width)


def _along_last(values: Array, like: Array) -> Array:
    """`values`, of the last dimensions, with leading dimensions of 1, so that broadcasting is said and not silent."""
    return values.reshape((1,) * (like.ndim - values.ndim) + values.shape)
