"""Cohere Command: both layers read one norm, neighbours turn together, logits are scaled."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import Family, without
from jaxgpt.convert.families.llama import (
    ATTENTION,
    ATTENTION_OUT,
    ENDS,
    FEEDFORWARD,
    PRE_NORM,
    QK_NORM,
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


class Cohere(Family):
    """Cohere For AI 2024, Command R (no paper; arXiv:2405.15032 describes Aya 23, which is built alike)."""

    model_type = "cohere"
    architecture = "CohereForCausalLM"
    defaults = MappingProxyType({"rope_theta": 500_000.0})
    sizes = without("head_dim")
    tied = True
    rules = (*ENDS, *ATTENTION, *ATTENTION_OUT, *FEEDFORWARD, *PRE_NORM, *QK_NORM)

    def config(self, settings: Settings) -> DecoderConfig:
        bias, epsilon = settings.get("attention_bias", False), settings["layer_norm_eps"]
        normed = settings.get("use_qk_norm", False)
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings, "interleaved"),
            mixer=AttentionConfig(
                bias=bias,
                output_bias=bias,
                qk_norm=normed,
                qk_norm_over="each_head" if normed else "head",
                qk_norm_kind=LayerNormConfig(epsilon, bias=False) if normed else None,
            ),
            feedforward=gated(settings),
            norm=LayerNormConfig(epsilon, bias=False),
            residual="parallel_one_norm",
            logit_scale=float(settings["logit_scale"]),
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        mixer = attention(config)
        return {
            **self.written_sizes(config),
            **rope_settings(config),
            **gated_settings(config),
            "attention_bias": mixer.bias,
            "layer_norm_eps": config.norm.epsilon,
            "use_qk_norm": mixer.qk_norm,
            "logit_scale": config.logit_scale,
        }
