"""Scores by sigmoid, balanced without a loss."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.router.base import LinearRouter, RouterConfig, Routing, Statistic, check_groups, within_groups
from jaxgpt.ops.experts import ByToken
from jaxgpt.registry import register


@register("sigmoid")
@dataclasses.dataclass(frozen=True)
class SigmoidRouterConfig(RouterConfig):
    """Each expert's score is sigmoid(x W). A correction per expert is added for the choice of the K, and not in the
    weights; after each step it grows by `correction_rate` for experts with less than the mean load, and shrinks for the
    others, which balances them without a loss (Wang et al. 2024, arXiv:2408.15664, algorithm 1; DeepSeek-V3,
    arXiv:2412.19437, equations 12 to 16).

    normalise: weights of the K sum to 1 before `scale`.
    scale: factor of the weights.
    groups, groups_kept: experts in equal groups, of which a token may use the `groups_kept` whose two highest corrected
        scores sum to most.
    """

    normalise: bool = True
    scale: float = 1.0
    groups: int = 1
    groups_kept: int = 1
    correction_rate: float = 1e-3

    def check(self, experts: int) -> None:
        super().check(experts)
        check_groups(experts, self.per_token, self.groups, self.groups_kept, best=2 if self.groups > 1 else 1)

    def make(self, width: int, experts: int, init_std: float, key: Array) -> SigmoidRouter:
        return SigmoidRouter(self, width, experts, init_std, key)

    @classmethod
    def examples(cls) -> tuple[RouterConfig, ...]:
        return cls(), cls(normalise=False, scale=2.5, groups=2)


class SigmoidRouter(LinearRouter):
    def __init__(self, config: SigmoidRouterConfig, width: int, experts: int, init_std: float, key: Array):
        super().__init__(width, experts, False, init_std, key)
        self.config = config
        self.correction = Statistic(jnp.zeros((experts,), jnp.float32), axes=("expert",), decay=False)

    def __call__(self, x_MD: Array, tokens_M: Array | None) -> Routing:
        config, logits_ME = self.config, self.logits(x_MD)
        scores_ME = jax.nn.sigmoid(logits_ME)
        corrected_ME = jax.lax.stop_gradient(scores_ME + self.correction[...].astype(jnp.float32)[None])
        if config.groups > 1:
            corrected_ME = within_groups(corrected_ME, config.groups, config.groups_kept, best=2, outside=-jnp.inf)
        _, experts_MK = jax.lax.top_k(corrected_ME, config.per_token)
        weights_MK = jnp.take_along_axis(scores_ME, experts_MK, axis=-1)
        if config.normalise:
            weights_MK = weights_MK / (weights_MK.sum(axis=-1, keepdims=True) + 1e-20)
        probabilities_ME = scores_ME / scores_ME.sum(axis=-1, keepdims=True)
        return Routing(ByToken(experts_MK, config.scale * weights_MK), probabilities_ME, logits_ME)

    def change(self, load_E: Array) -> dict[str, Array]:
        return {"correction": self.config.correction_rate * jnp.sign(load_E.mean() - load_E)}
