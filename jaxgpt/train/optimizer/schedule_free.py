"""Schedule-free AdamW."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax
from flax import nnx
from optax import contrib

from jaxgpt.nn.params import flatten, unflatten
from jaxgpt.registry import register
from jaxgpt.train.optimizer.base import Decays, OptimizerConfig, check_betas, check_sizes, decay_mask, per_parameter


@register("schedule_free")
@dataclasses.dataclass(frozen=True)
class ScheduleFreeConfig(OptimizerConfig):
    """Schedule-free AdamW: a running average of the weights takes the place of a falling learning rate (Defazio et al.
    2024, arXiv:2405.15682, algorithm 1). The average is what is validated, saved for evaluation and generated from.
    Goes with `schedule: constant` and its warm-up.

    beta1: how near the point where gradients are taken is to the average (the paper's beta).
    """

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1

    averages = True

    def __post_init__(self):
        check_betas(self, "beta1", "beta2")
        check_sizes(self)
        if not self.beta1:
            raise ValueError("beta1 must be positive: at 0 there would be no average")

    def make(self, learning_rate: optax.Schedule, decays: Decays = decay_mask) -> optax.GradientTransformation:
        base = optax.chain(
            optax.scale_by_rms(self.beta2, self.epsilon, eps_in_sqrt=False, bias_correction=True),
            optax.add_decayed_weights(self.weight_decay, decays),
            optax.scale_by_learning_rate(learning_rate),
        )
        # It counts steps from one where schedules count from zero.
        free = contrib.schedule_free(base, lambda step: learning_rate(step - 1), self.beta1)
        return optax.masked(free, lambda tree: per_parameter(tree, lambda _, leaf: isinstance(leaf, nnx.Param)))

    def average(self, state: Any, model: Any) -> Any:
        """x = (y - (1 - beta1) z) / beta1 (equation 3 solved for x). What no part of the state knows is
        frozen or no parameter, and its own average."""
        parts = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, contrib.ScheduleFreeState))
        steps: dict[str, Any] = {}
        for part in parts:
            if isinstance(part, contrib.ScheduleFreeState):
                steps |= flatten(part.z)
        return unflatten(
            model,
            {
                name: (y - (1 - self.beta1) * steps[name]) / self.beta1 if name in steps else y
                for name, y in flatten(model).items()
            },
        )
