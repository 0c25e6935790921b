"""Gemma 2: norms on both sides, soft caps, windows in every other layer."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.base import layer_types, windows
from jaxgpt.convert.families.gemma import Gemma
from jaxgpt.convert.families.llama import ATTENTION, ATTENTION_OUT, ENDS, FEEDFORWARD, SANDWICH, attention
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig


class Gemma2(Gemma):
    """Gemma team 2024 (arXiv:2408.00118)."""

    model_type = "gemma2"
    architecture = "Gemma2ForCausalLM"
    rules = (*ENDS, *ATTENTION, *ATTENTION_OUT, *FEEDFORWARD, *SANDWICH)
    period = 2  # one layer in so many has no window, where `layer_types` does not say

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(settings)
        mixer = dataclasses.replace(
            attention(config),
            scale=settings["query_pre_attn_scalar"] ** -0.5,
            soft_cap=settings.get("attn_logit_softcapping"),
        )
        return dataclasses.replace(
            config,
            mixer=mixer,
            norm_placement="sandwich",
            logit_soft_cap=settings.get("final_logit_softcapping"),
            **windows(self.types(settings), settings["sliding_window"]),
        )

    def types(self, settings: Settings) -> list[str]:
        """The `layer_types`."""
        period = settings.get("sliding_window_pattern", self.period)
        count = settings["num_hidden_layers"]
        other = ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(count)]
        return settings.get("layer_types") or other

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        types, window = layer_types(config)
        mixer = attention(config)
        scale = config.layer_dims.head_dim**-0.5 if mixer.scale is None else mixer.scale
        scalar = scale**-2
        return {
            **super().settings(config),
            "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
            "attn_logit_softcapping": mixer.soft_cap,
            "final_logit_softcapping": config.logit_soft_cap,
            "sliding_window": window,
            "layer_types": types,
        }
