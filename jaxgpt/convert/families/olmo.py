"""OLMo: norms without parameters, clipped queries, keys and values."""

from __future__ import annotations

from typing import Any

from jaxgpt.convert.families.base import Family, without
from jaxgpt.convert.families.llama import (
    ATTENTION,
    ATTENTION_OUT,
    ENDS,
    FEEDFORWARD,
    attention,
    gated,
    gated_settings,
    rope_settings,
)
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.norm import LayerNormConfig


class Olmo(Family):
    """Groeneveld et al. 2024 (arXiv:2402.00838). The epsilon of its norms is fixed at 1e-5."""

    model_type = "olmo"
    architecture = "OlmoForCausalLM"
    sizes = without("head_dim")
    rules = (*ENDS, *ATTENTION, *ATTENTION_OUT, *FEEDFORWARD)

    def config(self, settings: Settings) -> DecoderConfig:
        bias = settings.get("attention_bias", False)
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings),
            mixer=AttentionConfig(bias=bias, output_bias=bias, clip=settings.get("clip_qkv")),
            feedforward=gated(settings),
            norm=LayerNormConfig(1e-5, gain="none", bias=False),
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        mixer = attention(config)
        return {
            **self.written_sizes(config),
            **rope_settings(config),
            **gated_settings(config),
            "attention_bias": mixer.bias,
            "clip_qkv": mixer.clip,
        }
