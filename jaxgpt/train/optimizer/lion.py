"""Lion."""

from __future__ import annotations

import dataclasses

import optax

from jaxgpt.registry import register
from jaxgpt.train.optimizer.base import Decays, OptimizerConfig, check_betas, check_sizes, decay_mask


@register("lion")
@dataclasses.dataclass(frozen=True)
class LionConfig(OptimizerConfig):
    """Lion: the sign of a mixture of momentum and gradient, half the memory of AdamW (Chen et al. 2023,
    arXiv:2302.06675, algorithm 2). Its authors use a learning rate three to ten times smaller than AdamW's and a weight
    decay as many times larger.
    """

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 1.0

    def __post_init__(self):
        check_betas(self, "beta1", "beta2")
        check_sizes(self)

    def make(self, learning_rate: optax.Schedule, decays: Decays = decay_mask) -> optax.GradientTransformation:
        return optax.lion(learning_rate, self.beta1, self.beta2, weight_decay=self.weight_decay, mask=decays)
