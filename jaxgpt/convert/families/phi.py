"""Phi-1 to Phi-2: both layers read one norm, biases everywhere."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import Family, without
from jaxgpt.convert.families.gpt2 import dense
from jaxgpt.convert.families.llama import ATTENTION, ENDS, LAYER, PRE_NORM, attention, rope_settings
from jaxgpt.convert.layouts import OUTPUT
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.rules import linear, norm
from jaxgpt.convert.settings import NAMES, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig


class Phi(Family):
    """Li et al. 2023 (arXiv:2309.05463)."""

    model_type = "phi"
    architecture = "PhiForCausalLM"
    defaults = MappingProxyType({"partial_rotary_factor": 0.5})
    sizes = without("head_dim")
    rules = (
        *(rule for rule in ENDS if "final_norm" not in rule.paths[0]),
        *norm("/final_norm", "model.final_layernorm"),
        *ATTENTION,
        *linear("mixer/output", LAYER + "self_attn.dense", OUTPUT),
        *norm("mixer/query_norm", LAYER + "self_attn.q_layernorm"),
        *norm("mixer/key_norm", LAYER + "self_attn.k_layernorm"),
        *linear("feedforward/up", LAYER + "mlp.fc1"),
        *linear("feedforward/down", LAYER + "mlp.fc2"),
        *PRE_NORM,
    )

    def config(self, settings: Settings) -> DecoderConfig:
        epsilon, normed = settings["layer_norm_eps"], settings.get("qk_layernorm", False)
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings),
            mixer=AttentionConfig(qk_norm=normed, qk_norm_kind=LayerNormConfig(epsilon) if normed else None),
            feedforward=DenseConfig(settings.activation("hidden_act"), settings["intermediate_size"]),
            norm=LayerNormConfig(epsilon),
            residual="parallel_one_norm",
            bias=True,
            head_bias=True,
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer = dense(config)
        return {
            **self.written_sizes(config),
            **rope_settings(config),
            "hidden_act": NAMES[layer.activation],
            "intermediate_size": layer.hidden_of(config.width),
            "layer_norm_eps": config.norm.epsilon,
            "qk_layernorm": attention(config).qk_norm,
        }
