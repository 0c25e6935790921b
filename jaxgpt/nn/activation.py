"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

Activation = Literal["relu", "relu_squared", "gelu_tanh", "gelu_erf", "silu"]


def relu_squared(x: Array) -> Array:
    """max(x, 0)^2 (So et al. 2021, Primer, arXiv:2109.08668)."""
    positive = jnp.maximum(x, 0)
    return positive * positive


def gelu_erf(x: Array) -> Array:
    """x times the normal distribution function (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of gelu that GPT-2 uses (arXiv:1606.08415, section 2)."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "relu_squared": relu_squared,
    "gelu_tanh": gelu_tanh,
    "gelu_erf": gelu_erf,
    "silu": jax.nn.silu,
}
