"""Qwen 3."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.llama import QK_NORM, Llama, attention
from jaxgpt.convert.families.qwen2 import qwen_window_settings, qwen_windows
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig


class Qwen3(Llama):
    """Yang et al. 2025 (arXiv:2505.09388): queries and keys are normalised, head by head."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    biases = ("attention_bias",)
    rules = (*Llama.rules, *QK_NORM)

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(settings)
        mixer = dataclasses.replace(attention(config), qk_norm=True, qk_norm_kind=config.norm)
        return dataclasses.replace(config, mixer=mixer, **qwen_windows(settings))

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        return {**super().settings(config), **qwen_window_settings(config)}
