"""AdamW."""

from __future__ import annotations

import dataclasses

import optax

from jaxgpt.registry import register
from jaxgpt.train.optimizer.base import Decays, OptimizerConfig, check_betas, check_sizes, decay_mask


@register("adamw")
@dataclasses.dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2); weight decay on matrices only."""

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1

    def __post_init__(self):
        check_betas(self, "beta1", "beta2")
        check_sizes(self)

    def make(self, learning_rate: optax.Schedule, decays: Decays = decay_mask) -> optax.GradientTransformation:
        return optax.adamw(
            learning_rate, self.beta1, self.beta2, self.epsilon, weight_decay=self.weight_decay, mask=decays
        )
