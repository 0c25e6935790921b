"""Falcon, in its three kinds: many heads with ALiBi (RW), multi-query (7B), groups of heads (40B, 180B)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from jaxgpt.convert.families import bloom
from jaxgpt.convert.families.base import Family, without
from jaxgpt.convert.families.gpt2 import dense
from jaxgpt.convert.families.llama import rope_settings
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.rules import Rule, norm
from jaxgpt.convert.settings import NAMES, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig
from jaxgpt.nn.position import alibi
from jaxgpt.nn.position.alibi import AlibiConfig

LAYER = bloom.LAYER


TWO_NORMS = (
    *norm("mixer_norm", LAYER + "ln_attn"),
    *norm("feedforward_norm", LAYER + "ln_mlp"),
)


class Falcon(Family):
    """Almazrouei et al. 2023 (arXiv:2311.16867).

    With ALiBi transformers rounds slope times position to bfloat16, which loses the distance of neighbours beyond 256
    tokens; here only the slopes are rounded so.
    """

    model_type = "falcon"
    architecture = "FalconForCausalLM"
    defaults = MappingProxyType({"max_position_embeddings": 2048, "activation": "gelu", "layer_norm_epsilon": 1e-5})
    sizes = without("head_dim", "num_kv_heads")
    tied = True
    rules = (*bloom.ENDS, *bloom.QKV_BY_HEAD, *bloom.LINEARS)

    def rules_of(self, config: DecoderConfig) -> tuple[Rule, ...]:
        return (*self.rules, *(TWO_NORMS if config.residual == "parallel" else bloom.NORMS))

    def config(self, settings: Settings) -> DecoderConfig:
        heads, new = settings["num_attention_heads"], settings.get("new_decoder_architecture", False)
        kv_heads = (settings.get("num_kv_heads") or heads) if new else 1 if settings.get("multi_query", True) else heads
        two_norms = new and settings.get("num_ln_in_parallel_attn") in (None, 2)
        parallel = "parallel" if two_norms else "parallel_one_norm"
        if new:
            settings.only(parallel_attn=True)
        sizes = self.read_sizes(settings)
        turned = not settings.get("alibi", False)
        return DecoderConfig(
            **sizes,
            num_kv_heads=kv_heads,
            position=read_rope(settings) if turned else AlibiConfig(slopes(heads, sizes["width"] // heads)),
            mixer=AttentionConfig(),
            feedforward=DenseConfig(settings.activation("activation"), settings.get("ffn_hidden_size")),
            norm=LayerNormConfig(settings["layer_norm_epsilon"], bias=True),
            residual=parallel if new or settings.get("parallel_attn", True) else "sequential",
            bias=settings.get("bias", False),
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer, dims = dense(config), config.layer_dims
        turned = not isinstance(config.position, AlibiConfig)
        new = config.residual == "parallel" or dims.num_kv_heads not in (1, dims.num_heads)
        return {
            **self.written_sizes(config),
            **(rope_settings(config) if turned else {}),
            "alibi": not turned,
            "new_decoder_architecture": new,
            "num_kv_heads": dims.num_kv_heads,
            "num_ln_in_parallel_attn": (2 if config.residual == "parallel" else 1) if new else None,
            "multi_query": dims.num_kv_heads == 1,
            "parallel_attn": config.residual != "sequential",
            "activation": NAMES[layer.activation],
            "ffn_hidden_size": layer.hidden_of(config.width),
            "layer_norm_epsilon": config.norm.epsilon,
            "bias": config.bias,
        }


def slopes(num_heads: int, head_dim: int) -> tuple[float, ...]:
    """Those of ALiBi in bfloat16; biases are added before scores are divided by the root of the head width."""
    rounded = np.array(alibi.slopes(num_heads)).astype(ml_dtypes.bfloat16).astype(np.float64)
    return tuple((rounded * head_dim**-0.5).tolist())
