"""How parameters are drawn: by name, so that two variants with one seed draw the same values for all they share; and
their readable paths, a public format."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

Axes = tuple[str | None, ...]
T = TypeVar("T")


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


# ------------------------------------------------------------------------------------------- matrices

TABLES = ("vocab", "position")
"""Names of dimensions that are looked up or chosen from rather than multiplied by."""

Sides = tuple[tuple[int, ...], tuple[int, ...]]
"""Dimensions of inputs and of outputs, counted from the last one."""


def declared_decay(parameter: Any) -> bool:
    """Whether weight decay acts on a parameter, as it was declared: on matrices and tables."""
    return isinstance(parameter, nnx.Variable) and bool(parameter.get_metadata().get("decay", False))


def sides(parameter: Any) -> Sides | None:
    """Which dimensions of a parameter are inputs and which outputs, by its named axes; None where it is no matrix
    between the inputs and the outputs of a layer (tables, the head, gains, biases).

    Weights are laid out [inputs, outputs], layers and experts before: one dimension of inputs, or, where the model's
    width comes last, one of outputs. The rest are the other side's (heads and their width).
    """
    if not declared_decay(parameter):
        return None
    axes = tuple(parameter.get_metadata()["axes"])
    if axes[:1] == ("expert",):
        axes = axes[1:]
    if len(axes) < 2 or any(name in TABLES for name in axes):
        return None
    one, *rest = range(-len(axes), 0)
    if axes[-1] == "embed":
        *rest, one = range(-len(axes), 0)
        return tuple(rest), (one,)
    return (one,), tuple(rest)


# --------------------------------------------------------------------------------------------- paths


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise AssertionError(f"unknown pytree key {key!r}")


def path_name(path: Iterable[Any]) -> str:
    """`model/blocks/mixer/query`: a path of JAX in words."""
    return "/".join(_key_name(key) for key in path)


def variables(tree: Any) -> dict[str, nnx.Variable]:
    """The variables of a model, real or abstract, by readable path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return {path_name(path): leaf for path, leaf in leaves}


def flatten(tree: Any) -> dict[str, Any]:
    """`{"model/blocks/mixer/query": array, ...}`: the leaves of a state by readable path, in a stable order. Variables
    whose value was masked out have none."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    flat = {}
    for path, leaf in leaves:
        if isinstance(leaf, nnx.Variable):
            leaf = leaf.get_raw_value()
            if not jax.tree.leaves(leaf):
                continue
        flat[path_name(path)] = leaf
    return flat


def unflatten(like: T, flat: dict[str, Any]) -> T:
    """The tree `like` (real or abstract) with the leaves of `flat`."""
    leaves, structure = jax.tree_util.tree_flatten(like)
    names = list(flatten(like))
    assert len(names) == len(leaves)
    return jax.tree_util.tree_unflatten(structure, [flat[name] for name in names])
