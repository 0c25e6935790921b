"""Llama, and what is built like it with other settings."""

from __future__ import annotations

from typing import Any

from jaxgpt.convert.families.base import Family
from jaxgpt.convert.layouts import FLAT, LINEAR, OUTPUT, SAME
from jaxgpt.convert.rope import read_rope, written_rope
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import NAMES, ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.position.rotary import RopeConfig

LAYER = "model.layers.{layer}."
ENDS = (
    Rule("/embedding", "model.embed_tokens.weight", SAME),
    Rule("/final_norm/scale", "model.norm.weight", SAME),
    Rule("/final_norm/bias", "model.norm.bias", SAME),
    Rule("/head_matrix", "lm_head.weight", LINEAR),
    Rule("/head_bias", "lm_head.bias", SAME),
)
ATTENTION = (
    Rule("mixer/query", LAYER + "self_attn.q_proj.weight", LINEAR),
    Rule("mixer/key", LAYER + "self_attn.k_proj.weight", LINEAR),
    Rule("mixer/value", LAYER + "self_attn.v_proj.weight", LINEAR),
    Rule("mixer/query_bias", LAYER + "self_attn.q_proj.bias", FLAT),
    Rule("mixer/key_bias", LAYER + "self_attn.k_proj.bias", FLAT),
    Rule("mixer/value_bias", LAYER + "self_attn.v_proj.bias", FLAT),
)
ATTENTION_OUT = (
    Rule("mixer/output", LAYER + "self_attn.o_proj.weight", OUTPUT),
    Rule("mixer/output_bias", LAYER + "self_attn.o_proj.bias", SAME),
)
QK_NORM = (
    Rule("mixer/query_norm/scale", LAYER + "self_attn.q_norm.weight", SAME),
    Rule("mixer/key_norm/scale", LAYER + "self_attn.k_norm.weight", SAME),
)
FEEDFORWARD = (
    Rule("feedforward/gate", LAYER + "mlp.gate_proj.weight", LINEAR),
    Rule("feedforward/up", LAYER + "mlp.up_proj.weight", LINEAR),
    Rule("feedforward/down", LAYER + "mlp.down_proj.weight", LINEAR),
    Rule("feedforward/gate_bias", LAYER + "mlp.gate_proj.bias", SAME),
    Rule("feedforward/up_bias", LAYER + "mlp.up_proj.bias", SAME),
    Rule("feedforward/down_bias", LAYER + "mlp.down_proj.bias", SAME),
)
PRE_NORM = (
    Rule("mixer_norm/scale", LAYER + "input_layernorm.weight", SAME),
    Rule("mixer_norm/bias", LAYER + "input_layernorm.bias", SAME),
    Rule("feedforward_norm/scale", LAYER + "post_attention_layernorm.weight", SAME),
    Rule("feedforward_norm/bias", LAYER + "post_attention_layernorm.bias", SAME),
)
SANDWICH = (
    Rule("mixer_norm/scale", LAYER + "input_layernorm.weight", SAME),
    Rule("mixer_after_norm/scale", LAYER + "post_attention_layernorm.weight", SAME),
    Rule("feedforward_norm/scale", LAYER + "pre_feedforward_layernorm.weight", SAME),
    Rule("feedforward_after_norm/scale", LAYER + "post_feedforward_layernorm.weight", SAME),
)


class Llama(Family):
    """Touvron et al. 2023 (arXiv:2302.13971) and what followed, with every rope scaling."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    rules = (*ENDS, *ATTENTION, *ATTENTION_OUT, *FEEDFORWARD, *PRE_NORM)

    def config(self, settings: Settings) -> DecoderConfig:
        bias = settings.get("attention_bias", False)
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings),
            mixer=AttentionConfig(bias=bias, output_bias=bias),
            feedforward=gated(settings, bias=settings.get("mlp_bias", False)),
            norm=RMSNormConfig(settings["rms_norm_eps"]),
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        return {
            **self.written_sizes(config),
            **rope_settings(config),
            **gated_settings(config),
            "attention_bias": attention(config).bias,
            "mlp_bias": feedforward(config).bias,
            "rms_norm_eps": config.norm.epsilon,
        }


def gated(settings: Settings, bias: bool = False, activation: str = "hidden_act", hidden: str = "intermediate_size"):
    """A gated feed-forward layer as most families say it."""
    return GatedConfig(settings.activation(activation), settings[hidden], bias=bias)


def gated_settings(config: DecoderConfig, activation: str = "hidden_act") -> dict[str, Any]:
    layer = feedforward(config)
    return {activation: NAMES[layer.activation], "intermediate_size": layer.hidden_of(config.width)}


def feedforward(config: DecoderConfig) -> GatedConfig:
    """The gated feed-forward layer of all layers of a decoder."""
    if not isinstance(config.feedforward, GatedConfig):
        raise ConversionError("model.feedforward must be gated, one for all layers")
    return config.feedforward


def attention(config: DecoderConfig) -> AttentionConfig:
    """The attention of all layers of a decoder."""
    if type(config.mixer) is not AttentionConfig:
        raise ConversionError("model.mixer must be attention, one for all layers")
    return config.mixer


def rope(config: DecoderConfig) -> RopeConfig:
    """The rotary encoding of all layers of a decoder."""
    if not isinstance(config.position, RopeConfig):
        raise ConversionError("model.position must be rope, one for all layers")
    return config.position


def rope_settings(config: DecoderConfig) -> dict[str, Any]:
    return {"rope_parameters": written_rope(rope(config), config.layer_dims.train_length)}
