"""Gemma: scaled embeddings, gains of 1 + w, a gelu gate."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.llama import Llama
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig


class Gemma(Llama):
    """Gemma team 2024 (arXiv:2403.08295)."""

    model_type = "gemma"
    architecture = "GemmaForCausalLM"
    biases = ("attention_bias",)
    tied = True

    def config(self, settings: Settings) -> DecoderConfig:
        settings.only(use_bidirectional_attention=(None, False))
        # Older files say `gelu` and mean its tanh form.
        values = {**settings, "hidden_act": settings.get("hidden_activation") or "gelu_pytorch_tanh"}
        config = super().config(Settings(values, settings.place))
        norm = dataclasses.replace(config.norm, gain="one_plus")
        return dataclasses.replace(config, norm=norm, embedding_scale="sqrt_width")

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        found = super().settings(config)
        found["hidden_activation"] = found["hidden_act"]
        return found
