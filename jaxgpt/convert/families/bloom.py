"""BLOOM: ALiBi, embeddings normalised, queries, keys and values joined by head."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import Family
from jaxgpt.convert.families.gpt2 import QKV
from jaxgpt.convert.layouts import LINEAR, OUTPUT, SAME, HeadsJoined
from jaxgpt.convert.rules import Rule, linear, norm
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
    *norm("/final_norm", "transformer.ln_f"),
    Rule("/head_matrix", "lm_head.weight", LINEAR),
)
LINEARS = (
    *linear("mixer/output", LAYER + "self_attention.dense", OUTPUT),
    *linear("feedforward/up", LAYER + "mlp.dense_h_to_4h"),
    *linear("feedforward/down", LAYER + "mlp.dense_4h_to_h"),
)
QKV_BY_HEAD = linear(QKV, LAYER + "self_attention.query_key_value", HeadsJoined(), HeadsJoined(vector=True))
NORMS = (
    *norm("mixer_norm", LAYER + "input_layernorm"),
    *norm("feedforward_norm", LAYER + "post_attention_layernorm"),
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
        *norm("/embedding_norm", "transformer.word_embeddings_layernorm"),
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
