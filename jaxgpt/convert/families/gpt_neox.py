"""GPT-NeoX and Pythia: queries, keys and values joined by head, both layers may read the same stream."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import Family, without
from jaxgpt.convert.families.gpt2 import QKV, dense
from jaxgpt.convert.families.llama import attention, rope_settings
from jaxgpt.convert.layouts import LINEAR, OUTPUT, SAME, HeadsJoined
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.rules import Rule, linear, norm
from jaxgpt.convert.settings import NAMES, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig

LAYER = "gpt_neox.layers.{layer}."


class GptNeoX(Family):
    """Black et al. 2022 (arXiv:2204.06745); Pythia, Biderman et al. 2023 (arXiv:2304.01373)."""

    model_type = "gpt_neox"
    architecture = "GPTNeoXForCausalLM"
    defaults = MappingProxyType({"partial_rotary_factor": 0.25})
    aliases = MappingProxyType({"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"})
    sizes = without("head_dim", "num_kv_heads")
    ignored = ("*.attention.bias", "*.attention.masked_bias", "*.attention.rotary_emb.inv_freq")
    rules = (
        Rule("/embedding", "gpt_neox.embed_in.weight", SAME),
        *norm("/final_norm", "gpt_neox.final_layer_norm"),
        Rule("/head_matrix", "embed_out.weight", LINEAR),
        *linear(QKV, LAYER + "attention.query_key_value", HeadsJoined(), HeadsJoined(vector=True)),
        *linear("mixer/output", LAYER + "attention.dense", OUTPUT),
        *linear("feedforward/up", LAYER + "mlp.dense_h_to_4h"),
        *linear("feedforward/down", LAYER + "mlp.dense_4h_to_h"),
        *norm("mixer_norm", LAYER + "input_layernorm"),
        *norm("feedforward_norm", LAYER + "post_attention_layernorm"),
    )

    def config(self, settings: Settings) -> DecoderConfig:
        bias = settings.get("attention_bias", True)
        return DecoderConfig(
            **self.read_sizes(settings),
            position=read_rope(settings),
            mixer=AttentionConfig(bias=bias, output_bias=bias),
            feedforward=DenseConfig(settings.activation("hidden_act"), settings["intermediate_size"]),
            norm=LayerNormConfig(settings["layer_norm_eps"]),
            residual="parallel" if settings.get("use_parallel_residual", True) else "sequential",
            bias=True,
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer = dense(config)
        return {
            **self.written_sizes(config),
            **rope_settings(config),
            "attention_bias": attention(config).bias,
            "hidden_act": NAMES[layer.activation],
            "intermediate_size": layer.hidden_of(config.width),
            "layer_norm_eps": config.norm.epsilon,
            "use_parallel_residual": config.residual == "parallel",
        }
