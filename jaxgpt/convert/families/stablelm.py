"""StableLM: layer norms, part of each head turned, norms of each head's queries and keys in larger ones."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import Family, without
from jaxgpt.convert.families.llama import (
    ATTENTION,
    ATTENTION_OUT,
    ENDS,
    FEEDFORWARD,
    LAYER,
    PRE_NORM,
    attention,
    gated,
    gated_settings,
    rope_settings,
)
from jaxgpt.convert.layouts import SAME, PerItem
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.norm import LayerNormConfig


class StableLM(Family):
    """Bellagente et al. 2024 (arXiv:2402.17834)."""

    model_type = "stablelm"
    architecture = "StableLmForCausalLM"
    defaults = MappingProxyType({"partial_rotary_factor": 0.25})
    sizes = without("head_dim")
    rules = (
        *ENDS,
        *ATTENTION,
        *ATTENTION_OUT,
        *FEEDFORWARD,
        *PRE_NORM,
        Rule("mixer/query_norm/scale", LAYER + "self_attn.q_layernorm.norms.{item}.weight", PerItem(SAME)),
        Rule("mixer/key_norm/scale", LAYER + "self_attn.k_layernorm.norms.{item}.weight", PerItem(SAME)),
    )

    def config(self, settings: Settings) -> DecoderConfig:
        epsilon, normed = settings["layer_norm_eps"], settings.get("qk_layernorm", False)
        parallel = settings.get("use_parallel_residual", False)
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings),
            mixer=AttentionConfig(
                bias=settings.get("use_qkv_bias", False),
                output_bias=False,
                qk_norm=normed,
                qk_norm_over="each_head" if normed else "head",
                qk_norm_kind=LayerNormConfig(epsilon, bias=False) if normed else None,
            ),
            feedforward=gated(settings),
            norm=LayerNormConfig(epsilon, bias=True),
            residual="parallel_one_norm" if parallel else "sequential",
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        mixer = attention(config)
        return {
            **self.written_sizes(config),
            **rope_settings(config),
            **gated_settings(config),
            "layer_norm_eps": config.norm.epsilon,
            "qk_layernorm": mixer.qk_norm,
            "use_qkv_bias": mixer.bias,
            "use_parallel_residual": config.residual != "sequential",
        }
