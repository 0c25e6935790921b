"""Top-k of a softmax."""

from __future__ import annotations

import dataclasses

import jax
from jax import Array

from jaxgpt.nn.router.base import LinearRouter, RouterConfig, Routing, check_groups, within_groups
from jaxgpt.ops.experts import ByToken
from jaxgpt.registry import register


@register("softmax")
@dataclasses.dataclass(frozen=True)
class SoftmaxRouterConfig(RouterConfig):
    """The K experts of highest probability under softmax(x W) (Shazeer et al. 2017, arXiv:1701.06538, equation 3).

    normalise: weights of the K sum to 1, which is a softmax over their logits alone (Mixtral, arXiv:2401.04088, section
        2.1); without it they are the probabilities among all experts (OLMoE, arXiv:2409.02060; Qwen 1.5).
    scale: factor of the weights (DeepSeek-V2, arXiv:2405.04434).
    groups, groups_kept: experts in equal groups, of which a token may use the `groups_kept` with the most probable
        expert (DeepSeek-V2, section 2.2.2).
    bias: of the linear map (gpt-oss).
    """

    normalise: bool = True
    scale: float = 1.0
    groups: int = 1
    groups_kept: int = 1
    bias: bool = False

    def check(self, experts: int) -> None:
        super().check(experts)
        check_groups(experts, self.per_token, self.groups, self.groups_kept, best=1)

    def make(self, width: int, experts: int, init_std: float, key: Array) -> SoftmaxRouter:
        return SoftmaxRouter(self, width, experts, init_std, key)

    @classmethod
    def examples(cls) -> tuple[RouterConfig, ...]:
        return cls(), cls(normalise=False, scale=1.5, groups=2, bias=True)


class SoftmaxRouter(LinearRouter):
    def __init__(self, config: SoftmaxRouterConfig, width: int, experts: int, init_std: float, key: Array):
        super().__init__(width, experts, config.bias, init_std, key)
        self.config = config

    def __call__(self, x_MD: Array, tokens_M: Array | None) -> Routing:
        config, logits_ME = self.config, self.logits(x_MD)
        probabilities_ME = jax.nn.softmax(logits_ME, axis=-1)
        allowed_ME = probabilities_ME
        if config.groups > 1:
            allowed_ME = within_groups(probabilities_ME, config.groups, config.groups_kept, best=1, outside=0.0)
        weights_MK, experts_MK = jax.lax.top_k(allowed_ME, config.per_token)
        if config.normalise:
            weights_MK = weights_MK / weights_MK.sum(axis=-1, keepdims=True)
        return Routing(ByToken(experts_MK, config.scale * weights_MK), probabilities_ME, logits_ME)
