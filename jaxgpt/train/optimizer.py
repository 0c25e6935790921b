"""Optimizers: the slot and its kinds."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax
from flax import nnx

from jaxgpt.registry import register, slot


@slot("optimizer", package="jaxgpt.train.optimizer")
@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    def make(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        raise TypeError(f"{type(self).__qualname__} must define make()")


@register("adamw")
@dataclasses.dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2); weight decay on matrices only."""

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1

    def __post_init__(self):
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.epsilon <= 0 or self.weight_decay < 0:
            raise ValueError("epsilon must be positive and weight_decay not negative")

    def make(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.adamw(
            learning_rate, self.beta1, self.beta2, self.epsilon, weight_decay=self.weight_decay, mask=decay_mask
        )


def decay_mask(model: Any) -> Any:
    """True for the parameters that weight decay acts on: the matrices, as `nn.params` declared them."""

    def of(leaf: Any) -> Any:
        return leaf.replace(bool(leaf.get_metadata().get("decay", False))) if isinstance(leaf, nnx.Variable) else False

    return jax.tree.map(of, model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
