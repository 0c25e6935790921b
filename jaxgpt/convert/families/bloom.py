"""BLOOM: ALiBi, embeddings normalised, queries, keys and values joined by head."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import Family
from jaxgpt.convert.families.gpt2 import QKV, QKV_BIAS
from jaxgpt.convert.layouts import LINEAR, OUTPUT, SAME, HeadsJoined
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig
from jaxgpt.nn.position.alibi import AlibiConfig

LAYER = "transformer.h.{layer}."
SIZES = {"vocab_size": "vocab_size", "width": "hidden_size", "num_layers": "n_layer", "num_heads": "n_head"}
ENDS = (
    Rule("/embedding", "transformer.word_embeddings.weight", SAME),
    Rule("/final_norm/scale", "transformer.ln_f.weight", SAME),
    Rule("/final_norm/bias", "transformer.ln_f.bias", SAME),
    Rule("/head_matrix", "lm_head.weight", LINEAR),
)
LINEARS = (
    Rule("mixer/output", LAYER + "self_attention.dense.weight", OUTPUT),
    Rule("mixer/output_bias", LAYER + "self_attention.dense.bias", SAME),
    Rule("feedforward/up", LAYER + "mlp.dense_h_to_4h.weight", LINEAR),
    Rule("feedforward/up_bias", LAYER + "mlp.dense_h_to_4h.bias", SAME),
    Rule("feedforward/down", LAYER + "mlp.dense_4h_to_h.weight", LINEAR),
    Rule("feedforward/down_bias", LAYER + "mlp.dense_4h_to_h.bias", SAME),
)
QKV_BY_HEAD = (
    Rule(QKV, LAYER + "self_attention.query_key_value.weight", HeadsJoined()),
    Rule(QKV_BIAS, LAYER + "self_attention.query_key_value.bias", HeadsJoined(vector=True)),
)
NORMS = (
    Rule("mixer_norm/scale", LAYER + "input_layernorm.weight", SAME),
    Rule("mixer_norm/bias", LAYER + "input_layernorm.bias", SAME),
    Rule("feedforward_norm/scale", LAYER + "post_attention_layernorm.weight", SAME),
    Rule("feedforward_norm/bias", LAYER + "post_attention_layernorm.bias", SAME),
)


class Bloom(Family):
    """BigScience 2022 (arXiv:2211.05100)."""

    model_type = "bloom"
    architecture = "BloomForCausalLM"
    sizes = SIZES
    defaults = MappingProxyType({"layer_norm_epsilon": 1e-5})
    aliases = MappingProxyType(
        {"n_embed": "hidden_size", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}
    )
    tied = True
    rules = (
        *ENDS,
        Rule("/embedding_norm/scale", "transformer.word_embeddings_layernorm.weight", SAME),
        Rule("/embedding_norm/bias", "transformer.word_embeddings_layernorm.bias", SAME),
        *QKV_BY_HEAD,
        *LINEARS,
        *NORMS,
    )

    def config(self, settings: Settings) -> DecoderConfig:
        settings.only(apply_residual_connection_post_layernorm=False)
        return DecoderConfig(
            **self.read_sizes(settings),
            train_length=settings.get("seq_length", 2048),
            position=AlibiConfig(),
            mixer=AttentionConfig(),
            feedforward=DenseConfig("gelu_tanh"),
            norm=LayerNormConfig(settings["layer_norm_epsilon"]),
            embedding_norm=True,
            bias=True,
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        return {
            **self.written_sizes(config),
            "seq_length": config.layer_dims.train_length,
            "layer_norm_epsilon": config.norm.epsilon,
        }
