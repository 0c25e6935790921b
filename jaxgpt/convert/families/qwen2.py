"""Qwen 2 and 2.5."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.base import layer_types, windows
from jaxgpt.convert.families.llama import Llama, attention
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig


class Qwen2(Llama):
    """Yang et al. 2024 (arXiv:2407.10671): biases of queries, keys and values; some layers may have a window."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    biases = ()

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(settings)
        mixer = dataclasses.replace(attention(config), bias=True, output_bias=False)
        return dataclasses.replace(config, mixer=mixer, **qwen_windows(settings))

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        return {**super().settings(config), **qwen_window_settings(config)}


def qwen_windows(settings: Settings) -> dict[str, Any]:
    """Fields of a decoder whose layers from `max_window_layers` on have a window, if they are told to use it."""
    if not settings.get("use_sliding_window", False) or not settings.get("sliding_window"):
        return {}
    full = min(settings["max_window_layers"], settings["num_hidden_layers"])
    types = settings.get("layer_types") or (
        ["full_attention"] * full + ["sliding_attention"] * (settings["num_hidden_layers"] - full)
    )
    return windows(types, settings["sliding_window"])


def qwen_window_settings(config: DecoderConfig) -> dict[str, Any]:
    types, window = layer_types(config)
    full = types.index("sliding_attention") if "sliding_attention" in types else len(types)
    return {
        "layer_types": types,
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": full,
    }
