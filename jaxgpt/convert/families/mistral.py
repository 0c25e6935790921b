"""Mistral: Llama with a window."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.base import layer_types
from jaxgpt.convert.families.llama import Llama
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig


class Mistral(Llama):
    """Jiang et al. 2023 (arXiv:2310.06825)."""

    model_type = "mistral"
    architecture = "MistralForCausalLM"
    biases = ()

    def config(self, settings: Settings) -> DecoderConfig:
        return dataclasses.replace(super().config(settings), window=settings.get("sliding_window"))

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        _, window = layer_types(config)
        return {**super().settings(config), "sliding_window": window}
