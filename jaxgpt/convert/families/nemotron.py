"""Nemotron: layer norms of 1 + w, squared relu, part of each head turned."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import Family
from jaxgpt.convert.families.llama import (
    ATTENTION,
    ATTENTION_OUT,
    ENDS,
    FEEDFORWARD,
    PRE_NORM,
    attention,
    rope_settings,
)
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.settings import NAMES, ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig


class Nemotron(Family):
    """Parmar et al. 2024 (arXiv:2402.16819)."""

    model_type = "nemotron"
    architecture = "NemotronForCausalLM"
    defaults = MappingProxyType({"partial_rotary_factor": 0.5})
    rules = (*ENDS, *ATTENTION, *ATTENTION_OUT, *FEEDFORWARD, *PRE_NORM)

    def config(self, settings: Settings) -> DecoderConfig:
        bias = settings.get("attention_bias", False)
        feedforward = DenseConfig(
            settings.activation("hidden_act"), settings["intermediate_size"], bias=settings.get("mlp_bias", False)
        )
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings),
            mixer=AttentionConfig(bias=bias, output_bias=bias),
            feedforward=feedforward,
            norm=LayerNormConfig(settings["norm_eps"], gain="one_plus", bias=True),
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer = config.feedforward
        if not isinstance(layer, DenseConfig):
            raise ConversionError("model.feedforward must be dense, one for all layers")
        return {
            **self.written_sizes(config),
            **rope_settings(config),
            "hidden_act": NAMES[layer.activation],
            "intermediate_size": layer.hidden_of(config.width),
            "attention_bias": attention(config).bias,
            "mlp_bias": layer.bias,
            "norm_eps": config.norm.epsilon,
        }
