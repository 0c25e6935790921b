"""Qwen 1.5 and 2 with experts: one more layer for all tokens, behind a gate."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.llama import LAYER
from jaxgpt.convert.families.qwen2 import Qwen2
from jaxgpt.convert.families.qwen3_moe import EXPERTS, Qwen3Moe, mixed_layers, split_layers
from jaxgpt.convert.layouts import LINEAR
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig

SHARED = LAYER + "mlp.shared_expert."


class Qwen2Moe(Qwen3Moe):
    """Yang et al. 2024 (arXiv:2407.10671)."""

    model_type = "qwen2_moe"
    architecture = "Qwen2MoeForCausalLM"
    biases = Qwen2.biases
    sizes = Qwen2.sizes
    rules = (
        *Qwen2.rules,
        *EXPERTS,
        Rule("feedforward/shared/gate", SHARED + "gate_proj.weight", LINEAR),
        Rule("feedforward/shared/up", SHARED + "up_proj.weight", LINEAR),
        Rule("feedforward/shared/down", SHARED + "down_proj.weight", LINEAR),
        Rule("feedforward/shared_gate", LAYER + "mlp.shared_expert_gate.weight", LINEAR),
    )

    def config(self, settings: Settings) -> DecoderConfig:
        settings.only(qkv_bias=True, use_sliding_window=False)
        return dataclasses.replace(Qwen2().config(settings), **mixed_layers(settings, self.mixture(settings)))

    def mixture(self, settings: Settings) -> MixtureConfig:
        shared = GatedConfig(settings.activation("hidden_act"), settings["shared_expert_intermediate_size"], bias=False)
        return dataclasses.replace(super().mixture(settings), shared=shared, shared_gate=True)

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        _, mixed, _ = split_layers(config)
        if not isinstance(mixed, MixtureConfig) or mixed.shared is None:
            raise ConversionError("model.feedforward.shared: a qwen2_moe model has a shared layer")
        return {
            **super().settings(config),
            "shared_expert_intermediate_size": mixed.shared.hidden_of(config.width),
            "qkv_bias": True,
        }
