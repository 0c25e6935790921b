"""Weights that are evaluated in the place of those that are trained: running averages of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.train.optimizer.base import OptimizerConfig

Averaging = Callable[[Any, Any, Any, Array], Any]
"""(average before, model, optimizer state, steps done before this one) -> average."""


def make_averaging(optimizer: OptimizerConfig, ema: float | None) -> Averaging | None:
    """What keeps the average, or None where the weights that are trained are evaluated.

    `ema` is the decay of an exponential moving average (Polyak & Juditsky 1992; as in Tarvainen & Valpola 2017,
    arXiv:1703.01780). It decays faster at first, (1 + step) / (10 + step), or its start would weigh too much. What is
    no parameter is not averaged.
    """
    if optimizer.averages:
        return lambda average, model, state, step: optimizer.average(state, model)
    if ema is None:
        return None

    def moving(average: Any, model: Any, state: Any, step: Array) -> Any:
        time = step.astype(jnp.float32)
        decay = jnp.minimum(ema, (1 + time) / (10 + time))

        def one(old: Any, new: Any) -> Any:
            if not isinstance(new, nnx.Param):
                return new
            return jax.tree.map(lambda a, b: a + ((1 - decay) * (b - a)).astype(a.dtype), old, new)

        return jax.tree.map(one, average, model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))

    return moving
