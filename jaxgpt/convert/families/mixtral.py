"""Mixtral: Mistral with experts."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.llama import ATTENTION, ATTENTION_OUT, ENDS, LAYER, PRE_NORM, gated
from jaxgpt.convert.families.mistral import Mistral
from jaxgpt.convert.layouts import LINEAR, PerItem
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig

EXPERT = LAYER + "block_sparse_moe.experts.{item}."


class Mixtral(Mistral):
    """Jiang et al. 2024 (arXiv:2401.04088)."""

    model_type = "mixtral"
    architecture = "MixtralForCausalLM"
    defaults = MappingProxyType({"rope_theta": 1e6})
    rules = (
        *ENDS,
        *ATTENTION,
        *ATTENTION_OUT,
        *PRE_NORM,
        Rule("feedforward/router/weight", LAYER + "block_sparse_moe.gate.weight", LINEAR),
        Rule("feedforward/experts/gate", EXPERT + "w1.weight", PerItem(LINEAR)),
        Rule("feedforward/experts/down", EXPERT + "w2.weight", PerItem(LINEAR)),
        Rule("feedforward/experts/up", EXPERT + "w3.weight", PerItem(LINEAR)),
    )

    def config(self, settings: Settings) -> DecoderConfig:
        mixture = MixtureConfig(
            experts=settings["num_local_experts"],
            expert=gated(settings),
            router=SoftmaxRouterConfig(settings["num_experts_per_tok"]),
            balance_loss=settings.get("router_aux_loss_coef", 0.001),
        )
        return dataclasses.replace(super().config(settings), feedforward=mixture)

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer, expert, router = mixture(config)
        return {
            **super().settings(dataclasses.replace(config, feedforward=expert)),
            "num_local_experts": layer.experts,
            "num_experts_per_tok": router.per_token,
            "router_aux_loss_coef": layer.balance_loss,
        }


def mixture(config: DecoderConfig) -> tuple[MixtureConfig, GatedConfig, SoftmaxRouterConfig]:
    """The mixture of all layers of a decoder, its experts and its softmax router."""
    return parts(config.feedforward)


def parts(layer: object) -> tuple[MixtureConfig, GatedConfig, SoftmaxRouterConfig]:
    """A mixture, its experts and its softmax router."""
    if not isinstance(layer, MixtureConfig):
        raise ConversionError("model.feedforward must be moe")
    if not isinstance(layer.expert, GatedConfig) or not isinstance(layer.router, SoftmaxRouterConfig):
        raise ConversionError("model.feedforward must have gated experts and a softmax router")
    return layer, layer.expert, layer.router
