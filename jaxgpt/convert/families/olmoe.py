"""OLMoE: many small experts, queries and keys normalised over all heads."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.base import without
from jaxgpt.convert.families.llama import ATTENTION, ATTENTION_OUT, ENDS, PRE_NORM, QK_NORM, Llama, attention, gated
from jaxgpt.convert.families.mixtral import mixture
from jaxgpt.convert.families.qwen3_moe import EXPERTS
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig


class Olmoe(Llama):
    """Muennighoff et al. 2024 (arXiv:2409.02060)."""

    model_type = "olmoe"
    architecture = "OlmoeForCausalLM"
    biases = ("attention_bias",)
    sizes = without("head_dim")
    rules = (*ENDS, *ATTENTION, *ATTENTION_OUT, *QK_NORM, *PRE_NORM, *EXPERTS)

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(settings)
        mixer = dataclasses.replace(
            attention(config),
            qk_norm=True,
            qk_norm_over="width",
            qk_norm_kind=config.norm,
            clip=settings.get("clip_qkv"),
        )
        layer = MixtureConfig(
            experts=settings["num_experts"],
            expert=gated(settings),
            router=SoftmaxRouterConfig(
                settings["num_experts_per_tok"], normalise=settings.get("norm_topk_prob", False)
            ),
            balance_loss=settings.get("router_aux_loss_coef", 0.01),
        )
        return dataclasses.replace(config, mixer=mixer, feedforward=layer)

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer, expert, router = mixture(config)
        return {
            **super().settings(dataclasses.replace(config, feedforward=expert)),
            "clip_qkv": attention(config).clip,
            "num_experts": layer.experts,
            "num_experts_per_tok": router.per_token,
            "norm_topk_prob": router.normalise,
            "router_aux_loss_coef": layer.balance_loss,
        }
