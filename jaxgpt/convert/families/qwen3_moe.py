"""Qwen 3 with experts."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

from jaxgpt.config import FrozenMapping
from jaxgpt.convert.families.base import layers
from jaxgpt.convert.families.llama import LAYER, gated
from jaxgpt.convert.families.mixtral import parts
from jaxgpt.convert.families.qwen3 import Qwen3
from jaxgpt.convert.layouts import LINEAR, PerItem
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import NAMES, ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.stack import of_kind
from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig

EXPERT = LAYER + "mlp.experts.{item}."
EXPERTS = (
    Rule("feedforward/router/weight", LAYER + "mlp.gate.weight", LINEAR),
    Rule("feedforward/experts/gate", EXPERT + "gate_proj.weight", PerItem(LINEAR)),
    Rule("feedforward/experts/up", EXPERT + "up_proj.weight", PerItem(LINEAR)),
    Rule("feedforward/experts/down", EXPERT + "down_proj.weight", PerItem(LINEAR)),
)


class Qwen3Moe(Qwen3):
    """Yang et al. 2025 (arXiv:2505.09388). Layers named in `mlp_only_layers` are dense."""

    model_type = "qwen3_moe"
    architecture = "Qwen3MoeForCausalLM"
    rules = (*Qwen3.rules, *EXPERTS)
    aliases = MappingProxyType({"num_local_experts": "num_experts"})

    def config(self, settings: Settings) -> DecoderConfig:
        settings.only(use_sliding_window=False)  # which layers have the window differs from version to version
        return dataclasses.replace(super().config(settings), **mixed_layers(settings, self.mixture(settings)))

    def mixture(self, settings: Settings) -> MixtureConfig:
        """The layer with experts."""
        return MixtureConfig(
            experts=settings["num_experts"],
            expert=GatedConfig(settings.activation("hidden_act"), settings["moe_intermediate_size"], bias=False),
            router=SoftmaxRouterConfig(
                settings["num_experts_per_tok"], normalise=settings.get("norm_topk_prob", False)
            ),
            balance_loss=settings.get("router_aux_loss_coef", 0.001),
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        dense, mixed, only = split_layers(config)
        layer, expert, router = parts(mixed)
        return {
            **super().settings(dataclasses.replace(config, feedforward=dense or expert)),
            "num_experts": layer.experts,
            "num_local_experts": layer.experts,
            "num_experts_per_tok": router.per_token,
            "norm_topk_prob": router.normalise,
            "moe_intermediate_size": expert.hidden_of(config.width),
            "hidden_act": NAMES[expert.activation],
            "router_aux_loss_coef": layer.balance_loss,
            "mlp_only_layers": only,
            "decoder_sparse_step": 1,
        }


def mixed_layers(settings: Settings, mixture: MixtureConfig) -> dict[str, Any]:
    """Fields of a decoder of which some layers may be dense."""
    count, step = settings["num_hidden_layers"], settings.get("decoder_sparse_step", 1)
    dense = [i in (settings.get("mlp_only_layers") or ()) or (i + 1) % step != 0 for i in range(count)]
    if not any(dense):
        return {"feedforward": mixture}
    if all(dense):
        return {}
    kinds = ["dense" if one else "mixture" for one in dense]
    return {**layers(kinds), "feedforward": FrozenMapping({"dense": gated(settings), "mixture": mixture})}


def split_layers(config: DecoderConfig) -> tuple[GatedConfig | None, FeedForwardConfig | None, list[int]]:
    """The dense layer, the mixture, and the numbers of the dense layers of a decoder that has one kind of each."""
    found = [of_kind(config.feedforward, kind) for kind in config.order.kinds]
    only = [number for number, layer in enumerate(found) if not isinstance(layer, MixtureConfig)]
    dense = {layer for layer in found if not isinstance(layer, MixtureConfig)}
    mixed = {layer for layer in found if isinstance(layer, MixtureConfig)}
    if len(dense) > 1 or len(mixed) != 1:
        raise ConversionError("model.feedforward must be one mixture of experts, and one dense layer at most")
    one = next(iter(dense), None)
    if one is not None and not isinstance(one, GatedConfig):
        raise ConversionError("model.feedforward: the dense layers must be gated")
    return one, next(iter(mixed)), only
