"""Norms of parameters, gradients and updates: one for all, or one per parameter and layer.

L: layers of a stack.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jaxgpt.nn.params import path_name
from jaxgpt.ops.layout import constrain


def parameters(tree: Any) -> dict[str, Array]:
    """The arrays that are trained, by path; of a model, or of a tree of the same form (gradients, updates)."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return {path_name(path): leaf.get_raw_value() for path, leaf in leaves if isinstance(leaf, nnx.Param)}


def global_norm(model: Any) -> Array:
    """The Euclidean norm of all parameters together."""
    return optax.tree.norm(parameters(model))


def norms_by_layer(tree: Any) -> dict[str, Array]:
    """The Euclidean norm of each parameter by path, float32: a scalar, or [L] where layers are stacked (`blocks/...`),
    in the order of the stack."""
    return {path: _norm(array, path.startswith("blocks/")) for path, array in parameters(tree).items()}


def _norm(array: Array, stacked: bool) -> Array:
    squares = jnp.square(array.astype(jnp.float32))
    if not stacked:
        return jnp.sqrt(squares.sum())
    return constrain(jnp.sqrt(squares.sum(axis=tuple(range(1, array.ndim)))), None)  # whole, for every process to read
