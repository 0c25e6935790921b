"""Experts choose their tokens."""

from __future__ import annotations

import dataclasses

import jax
from jax import Array

from jaxgpt.nn.router.base import LinearRouter, RouterConfig, Routing
from jaxgpt.ops.experts import ByExpert
from jaxgpt.registry import register


@register("expert_choice")
@dataclasses.dataclass(frozen=True)
class ExpertChoiceConfig(RouterConfig):
    """Each expert takes the tokens that score highest with it, as many as fill K experts per token on average: loads
    are equal, and a token may have any number of experts (Zhou et al. 2022, arXiv:2202.09368, equation 2).

    Not causal: whether an expert takes a token depends on all others of the batch, later ones too. The loss of a
    language model is better than it should be by that, and decoding differs from a full pass.
    """

    def make(self, width: int, experts: int, init_std: float, key: Array) -> ExpertChoiceRouter:
        return ExpertChoiceRouter(self, width, experts, init_std, key)


class ExpertChoiceRouter(LinearRouter):
    causal = False

    def __init__(self, config: ExpertChoiceConfig, width: int, experts: int, init_std: float, key: Array):
        super().__init__(width, experts, False, init_std, key)
        self.config = config

    def __call__(self, x_MD: Array, tokens_M: Array | None) -> Routing:
        logits_ME = self.logits(x_MD)
        probabilities_ME = jax.nn.softmax(logits_ME, axis=-1)
        tokens, experts = logits_ME.shape
        places = min(tokens, -(-tokens * self.config.per_token // experts))
        weights_EC, tokens_EC = jax.lax.top_k(probabilities_ME.T, places)
        return Routing(ByExpert(tokens_EC, weights_EC), probabilities_ME, logits_ME)
