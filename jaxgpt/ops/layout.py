"""Where dimensions lie on the mesh around a computation, if there is one. Without a mesh nothing is placed anywhere.

XLA divides a program by itself (GSPMD, Xu et al. 2021, arXiv:2105.04663); it is told only where its guess would be a
bad one: at the residual stream, around attention, and where rows and time become one dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import EllipsisType

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

ROWS = ("data", "fsdp", "expert")
"""Axes of the mesh along which the rows of a batch are divided."""

PLACES: dict[str, str | tuple[str, ...]] = {
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "hidden": "tensor",
    "vocab": "tensor",
    "expert": "expert",
    "row": ROWS,
    "time": "context",
    "token": ("context", *ROWS),
    "copy": ("context", *(axis for axis in ROWS if axis != "fsdp")),
}
"""Name of a dimension, of parameters (the first six) or of activations -> axis of the mesh, or axes; `copy`: those
along which parameters are copied, not divided. Dimensions of parameters with other names are whole on every device."""


def _sizes() -> Mapping[str, int]:
    """The axes of the mesh around, if it is one of ours (`pmap` has a mesh too)."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return sizes if "context" in sizes else {}


def platform() -> str:
    """What this computation is compiled for, "cpu", "gpu" or "tpu": the devices of the mesh around it, which need not
    be here; without a mesh, JAX's first."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def extent(name: str) -> int:
    """By how much the mesh around this computation divides dimensions of this name."""
    sizes, place = _sizes(), PLACES[name]
    return math.prod(sizes.get(axis, 1) for axis in ((place,) if isinstance(place, str) else place))


def constrain(x: Array, *names: str | EllipsisType | None) -> Array:
    """`x`, to lie as the names of its dimensions say. None: whole, as are those that an axis does not divide; `...`,
    the last: the rest as XLA likes."""
    if not _sizes():
        return x
    named = names[:-1] if names[-1] is ... else names
    assert len(named) == x.ndim or names[-1] is ..., (x.shape, names)
    spec: list[object] = []
    for size, name in zip(x.shape, named, strict=False):
        assert not isinstance(name, EllipsisType)
        spec.append(PLACES[name] if name is not None and size % extent(name) == 0 else None)
    spec += [PartitionSpec.UNCONSTRAINED] * (x.ndim - len(named))
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def divides_time(length: int) -> bool:
    """Whether the mesh divides sequences of this length; those that it cannot divide evenly are whole everywhere."""
    return extent("time") > 1 and length % extent("time") == 0


def parts_of_time(x: Array) -> Array:
    """`x [B, T, ...]` cut in time as the mesh divides it: [parts, B, T / parts, ...]."""
    count = extent("time")
    cut = x.reshape(x.shape[0], count, x.shape[1] // count, *x.shape[2:])
    return constrain(jnp.moveaxis(cut, 1, 0), "time", "row", ...)


def flatten_tokens(x: Array) -> Array:
    """`x [B, T, ...]` as [B * T, ...]. On a mesh that divides time the parts come first: so every device keeps what it
    has, where the order of the arrays would ask it for what others have."""
    batch, length, *rest = x.shape
    parts = parts_of_time(x) if divides_time(length) else x
    return parts.reshape(batch * length, *rest)


def unflatten_tokens(x: Array, batch: int, length: int) -> Array:
    """What `flatten_tokens` made of an array [B, T, ...], turned back."""
    rest = x.shape[1:]
    if not divides_time(length):
        return x.reshape(batch, length, *rest)
    parts = x.reshape(extent("time"), batch, -1, *rest)
    return jnp.moveaxis(parts, 0, 1).reshape(batch, length, *rest)


def by_device(x: Array) -> Array:
    """Tokens, as `flatten_tokens` orders them, [devices, M / devices, ...]; one part where they cannot be divided."""
    count = extent("token") if x.shape[0] % extent("token") == 0 else 1
    return constrain(x.reshape(count, -1, *x.shape[1:]), "token", None, ...)
