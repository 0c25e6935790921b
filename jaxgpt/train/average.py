"""A running average of the weights, which is evaluated in the place of those that are trained."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

M = TypeVar("M")


def moving_average(decay: float, average: M, model: M, step: Array) -> M:
    """The exponential moving average after one more step (Polyak & Juditsky 1992; as in Tarvainen & Valpola 2017,
    arXiv:1703.01780), `step` counted from 0. It decays faster at first, (1 + step) / (10 + step), or its start would
    weigh too much. What is no parameter is not averaged.
    """
    time = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + time) / (10 + time))

    def one(old: Any, new: Any) -> Any:
        if not isinstance(new, nnx.Param):
            return new
        return jax.tree.map(lambda a, b: a + ((1 - kept) * (b - a)).astype(a.dtype), old, new)

    return jax.tree.map(one, average, model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
