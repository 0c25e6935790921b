"""Phi-1 to Phi-2: both layers read one norm, biases everywhere."""

from __future__ import annotations

from typing import Any

from jaxgpt.convert.families.base import Family, without
from jaxgpt.convert.families.gpt2 import dense
from jaxgpt.convert.families.llama import ATTENTION, ENDS, LAYER, PRE_NORM, attention, rope_settings
from jaxgpt.convert.layouts import LINEAR, OUTPUT, SAME
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import NAMES, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig


class Phi(Family):
    """Li et al. 2023 (arXiv:2309.05463)."""

    model_type = "phi"
    architecture = "PhiForCausalLM"
    sizes = without("head_dim")
    rules = (
        *(rule for rule in ENDS if "final_norm" not in rule.paths[0]),
        Rule("/final_norm/scale", "model.final_layernorm.weight", SAME),
        Rule("/final_norm/bias", "model.final_layernorm.bias", SAME),
        *ATTENTION,
        Rule("mixer/output", LAYER + "self_attn.dense.weight", OUTPUT),
        Rule("mixer/output_bias", LAYER + "self_attn.dense.bias", SAME),
        Rule("mixer/query_norm/scale", LAYER + "self_attn.q_layernorm.weight", SAME),
        Rule("mixer/query_norm/bias", LAYER + "self_attn.q_layernorm.bias", SAME),
        Rule("mixer/key_norm/scale", LAYER + "self_attn.k_layernorm.weight", SAME),
        Rule("mixer/key_norm/bias", LAYER + "self_attn.k_layernorm.bias", SAME),
        Rule("feedforward/up", LAYER + "mlp.fc1.weight", LINEAR),
        Rule("feedforward/up_bias", LAYER + "mlp.fc1.bias", SAME),
        Rule("feedforward/down", LAYER + "mlp.fc2.weight", LINEAR),
        Rule("feedforward/down_bias", LAYER + "mlp.fc2.bias", SAME),
        *PRE_NORM,
    )

    def config(self, settings: Settings) -> DecoderConfig:
        epsilon, normed = settings["layer_norm_eps"], settings.get("qk_layernorm", False)
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings, usual_fraction=0.5),
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
