"""GPT-2."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import Family
from jaxgpt.convert.layouts import CONV, CONV_OUTPUT, FLAT, LINEAR, SAME, Joined
from jaxgpt.convert.rules import Rule, linear, norm
from jaxgpt.convert.settings import NAMES, ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig
from jaxgpt.nn.position.absolute import LearnedConfig

LAYER = "transformer.h.{layer}."
QKV = ("mixer/query", "mixer/key", "mixer/value")
NORMS = (
    *norm("mixer_norm", LAYER + "ln_1"),
    *norm("feedforward_norm", LAYER + "ln_2"),
)
ENDS = (
    Rule("/embedding", "transformer.wte.weight", SAME),
    *norm("/final_norm", "transformer.ln_f"),
    Rule("/head_matrix", "lm_head.weight", LINEAR),
    Rule("/head_bias", "lm_head.bias", SAME),
)
SIZES = {
    "vocab_size": "vocab_size",
    "width": "n_embd",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "train_length": "n_positions",
}


class Gpt2(Family):
    """Radford et al. 2019, Language Models are Unsupervised Multitask Learners."""

    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    defaults = MappingProxyType({"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"})
    sizes = SIZES
    tied = True
    ignored = ("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias")
    rules = (
        *ENDS,
        Rule("/position/table", "transformer.wpe.weight", SAME),
        *linear(QKV, LAYER + "attn.c_attn", Joined(CONV, axis=1), Joined(FLAT)),
        *linear("mixer/output", LAYER + "attn.c_proj", CONV_OUTPUT),
        *linear("feedforward/up", LAYER + "mlp.c_fc", CONV),
        *linear("feedforward/down", LAYER + "mlp.c_proj", CONV),
        *NORMS,
    )

    def config(self, settings: Settings) -> DecoderConfig:
        settings.only(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
        return DecoderConfig(
            **self.read_sizes(settings),
            position=LearnedConfig(),
            mixer=AttentionConfig(),
            feedforward=DenseConfig(settings.activation("activation_function"), settings.get("n_inner")),
            norm=LayerNormConfig(settings["layer_norm_epsilon"]),
            bias=True,
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer = dense(config)
        return {
            **self.written_sizes(config),
            "activation_function": NAMES[layer.activation],
            "n_inner": layer.hidden_of(config.width),
            "layer_norm_epsilon": config.norm.epsilon,
        }


def dense(config: DecoderConfig) -> DenseConfig:
    """The dense feed-forward layer of all layers of a decoder."""
    if not isinstance(config.feedforward, DenseConfig):
        raise ConversionError("model.feedforward must be dense, one for all layers")
    return config.feedforward
