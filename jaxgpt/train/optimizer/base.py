"""The one interface between gradients and updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import optax
from flax import nnx

from jaxgpt.models.mup import Growth
from jaxgpt.nn.params import declared_decay, path_name
from jaxgpt.registry import slot

Decays = Callable[[Any], Any]
"""Model -> tree of bool of the same form: which parameters weight decay acts on."""


def per_parameter(model: Any, of: Callable[[str, Any], Any]) -> Any:
    """A tree of the same form with `of(path, parameter)` in place of every array; what optax has masked stays so."""

    def one(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return of(path_name(path), leaf)
        masked = isinstance(leaf.get_raw_value(), optax.MaskedNode)
        return leaf if masked else leaf.replace(of(path_name(path), leaf))

    return jax.tree_util.tree_map_with_path(one, model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def decay_mask(model: Any) -> Any:
    """True for the parameters that weight decay acts on."""
    return per_parameter(model, lambda _, parameter: declared_decay(parameter))


@slot("optimizer", package="jaxgpt.train.optimizer")
@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    averages = False  # whether other weights are evaluated than are trained

    def make(self, learning_rate: optax.Schedule, decays: Decays = decay_mask) -> optax.GradientTransformation:
        raise TypeError(f"{type(self).__qualname__} must define make()")

    def width_factor(self, growth: Growth) -> float:
        """What muP multiplies the learning rate of a matrix by. As here for all whose updates have elements of about
        one size, whatever the gradient's (Yang et al. 2022, arXiv:2203.03466, table 3, Adam)."""
        return growth.rate

    def with_decay(self, times: float) -> Self:
        """The same with another weight decay."""
        return dataclasses.replace(self, weight_decay=times * self.weight_decay)  # type: ignore  # the kind's own field

    def average(self, state: Any, model: Any) -> Any:
        """The weights to evaluate, of an optimizer that `averages`, from its state and the weights that are trained."""
        raise TypeError(f"{type(self).__qualname__} does not average")


def check_betas(config: Any, *names: str) -> None:
    """Raise ValueError unless these fields are decay rates."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(config, name)}")


def check_sizes(config: Any) -> None:
    """Raise ValueError unless epsilon, if there is one, is positive, and weight_decay not negative."""
    if getattr(config, "epsilon", 1.0) <= 0:
        raise ValueError(f"epsilon must be positive, got {config.epsilon}")
    if config.weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative, got {config.weight_decay}")
