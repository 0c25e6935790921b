"""Llama, and what is built like it with other settings."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxgpt.convert.families.base import Family
from jaxgpt.convert.layouts import FLAT, LINEAR, OUTPUT, SAME
from jaxgpt.convert.rope import read_rope, written_rope
from jaxgpt.convert.rules import Rule, linear, norm
from jaxgpt.convert.settings import NAMES, ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.position.rotary import RopeConfig

LAYER = "model.layers.{layer}."
ENDS = (
    Rule("/embedding", "model.embed_tokens.weight", SAME),
    *norm("/final_norm", "model.norm"),
    Rule("/head_matrix", "lm_head.weight", LINEAR),
    Rule("/head_bias", "lm_head.bias", SAME),
)
ATTENTION = (
    *linear("mixer/query", LAYER + "self_attn.q_proj", LINEAR, FLAT),
    *linear("mixer/key", LAYER + "self_attn.k_proj", LINEAR, FLAT),
    *linear("mixer/value", LAYER + "self_attn.v_proj", LINEAR, FLAT),
)
ATTENTION_OUT = linear("mixer/output", LAYER + "self_attn.o_proj", OUTPUT)
QK_NORM = (
    Rule("mixer/query_norm/scale", LAYER + "self_attn.q_norm.weight", SAME),
    Rule("mixer/key_norm/scale", LAYER + "self_attn.k_norm.weight", SAME),
)
FEEDFORWARD = (
    *linear("feedforward/gate", LAYER + "mlp.gate_proj"),
    *linear("feedforward/up", LAYER + "mlp.up_proj"),
    *linear("feedforward/down", LAYER + "mlp.down_proj"),
)
PRE_NORM = (
    *norm("mixer_norm", LAYER + "input_layernorm"),
    *norm("feedforward_norm", LAYER + "post_attention_layernorm"),
)
SANDWICH = (
    Rule("mixer_norm/scale", LAYER + "input_layernorm.weight", SAME),
    Rule("mixer_after_norm/scale", LAYER + "post_attention_layernorm.weight", SAME),
    Rule("feedforward_norm/scale", LAYER + "pre_feedforward_layernorm.weight", SAME),
    Rule("feedforward_after_norm/scale", LAYER + "post_feedforward_layernorm.weight", SAME),
)


class Llama(Family):
    """Touvron et al. 2023 (arXiv:2302.13971) and what followed, with every rope scaling.

    biases: the settings of biases that a family has; transformers does not look at the others.
    """

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    rules = (*ENDS, *ATTENTION, *ATTENTION_OUT, *FEEDFORWARD, *PRE_NORM)
    biases: ClassVar[tuple[str, ...]] = ("attention_bias", "mlp_bias")

    def config(self, settings: Settings) -> DecoderConfig:
        bias, mlp_bias = (name in self.biases and settings.get(name, False) for name in ("attention_bias", "mlp_bias"))
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings),
            mixer=AttentionConfig(bias=bias, output_bias=bias),
            feedforward=gated(settings, bias=mlp_bias),
            norm=RMSNormConfig(settings["rms_norm_eps"]),
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        biases = {"attention_bias": attention(config).bias, "mlp_bias": feedforward(config).bias}
        return {
            **self.written_sizes(config),
            **rope_settings(config),
            **gated_settings(config),
            **{name: biases[name] for name in self.biases},
            "rms_norm_eps": config.norm.epsilon,
        }


def gated(settings: Settings, bias: bool = False) -> GatedConfig:
    """A gated feed-forward layer as most families say it."""
    return GatedConfig(settings.activation("hidden_act"), settings["intermediate_size"], bias=bias)


def gated_settings(config: DecoderConfig) -> dict[str, Any]:
    layer = feedforward(config)
    return {"hidden_act": NAMES[layer.activation], "intermediate_size": layer.hidden_of(config.width)}


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
