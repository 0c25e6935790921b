"""How parameters are drawn: by name, so that two variants with one seed draw the same values for all they share."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

Axes = tuple[str | None, ...]


def named(key: Array, name: str) -> Array:
    """A key that depends on `key` and on the parameter's name only."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def normal(
    key: Array, name: str, shape: tuple[int, ...], axes: Axes, std: float = 0.02, decay: bool = True
) -> nnx.Param:
    """A float32 parameter drawn from N(0, std). `axes` names each dimension for the sharding table; `decay` tells the
    optimizer that this is a matrix, which weight decay may shrink.
    """
    return nnx.Param(std * jax.random.normal(named(key, name), shape, jnp.float32), axes=axes, decay=decay)


def uniform(
    key: Array, name: str, shape: tuple[int, ...], axes: Axes, low: float, high: float, decay: bool = False
) -> nnx.Param:
    """A float32 parameter drawn evenly from [low, high)."""
    return nnx.Param(jax.random.uniform(named(key, name), shape, jnp.float32, low, high), axes=axes, decay=decay)


def constant(value: float, shape: tuple[int, ...], axes: Axes) -> nnx.Param:
    """A float32 parameter that starts at one value everywhere (biases, gains); weight decay leaves it alone."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes, decay=False)
