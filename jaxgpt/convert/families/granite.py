"""Granite: Llama with four multipliers."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.base import without
from jaxgpt.convert.families.llama import Llama, attention
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig


class Granite(Llama):
    """IBM 2024, Granite 3.0 language models (no paper on arXiv; arXiv:2405.04324 describes the code models)."""

    model_type = "granite"
    architecture = "GraniteForCausalLM"
    sizes = without("head_dim")

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(settings)
        return dataclasses.replace(
            config,
            mixer=dataclasses.replace(attention(config), scale=float(settings["attention_multiplier"])),
            embedding_scale=float(settings["embedding_multiplier"]),
            residual_scale=float(settings["residual_multiplier"]),
            logit_scale=1 / settings["logits_scaling"],
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        mixer = attention(config)
        scale = config.layer_dims.head_dim**-0.5 if mixer.scale is None else mixer.scale
        return {
            **super().settings(config),
            "attention_multiplier": scale,
            "embedding_multiplier": config.embedding_factor,
            "residual_multiplier": config.residual_scale,
            "logits_scaling": 1 / config.logit_scale,
        }
