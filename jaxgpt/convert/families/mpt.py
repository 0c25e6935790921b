"""MPT: ALiBi, no biases."""

from __future__ import annotations

from typing import Any

from jaxgpt.convert.families.base import Family
from jaxgpt.convert.families.gpt2 import QKV, dense
from jaxgpt.convert.families.llama import attention
from jaxgpt.convert.layouts import LINEAR, OUTPUT, SAME, Joined
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig
from jaxgpt.nn.position.alibi import AlibiConfig

LAYER = "transformer.blocks.{layer}."
SIZES = {
    "vocab_size": "vocab_size",
    "width": "d_model",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "train_length": "max_seq_len",
}


class Mpt(Family):
    """MosaicML 2023, MPT-7B. transformers computes the models with ALiBi and without biases; so does this."""

    model_type = "mpt"
    architecture = "MptForCausalLM"
    sizes = SIZES
    tied = True
    rules = (
        Rule("/embedding", "transformer.wte.weight", SAME),
        Rule("/final_norm/scale", "transformer.norm_f.weight", SAME),
        Rule("/head_matrix", "lm_head.weight", LINEAR),
        Rule(QKV, LAYER + "attn.Wqkv.weight", Joined(LINEAR)),
        Rule("mixer/output", LAYER + "attn.out_proj.weight", OUTPUT),
        Rule("feedforward/up", LAYER + "ffn.up_proj.weight", LINEAR),
        Rule("feedforward/down", LAYER + "ffn.down_proj.weight", LINEAR),
        Rule("mixer_norm/scale", LAYER + "norm_1.weight", SAME),
        Rule("feedforward_norm/scale", LAYER + "norm_2.weight", SAME),
    )

    def config(self, settings: Settings) -> DecoderConfig:
        settings.only(no_bias=True, logit_scale=None, norm_type=("low_precision_layernorm", "layernorm"))
        given = Settings(settings.get("attn_config") or {}, f"{settings.place}: attn_config")
        given.only(alibi=True, alibi_bias_max=8, qk_ln=False, prefix_lm=False, attn_uses_sequence_id=False)
        clip, scale = given.get("clip_qkv"), given.get("softmax_scale")
        return DecoderConfig(
            **self.read_sizes(settings),
            position=AlibiConfig(slopes(settings["n_heads"])),
            mixer=AttentionConfig(clip=clip or None, scale=scale or None),
            feedforward=DenseConfig("gelu_erf", multiplier=float(settings.get("expansion_ratio", 4))),
            norm=LayerNormConfig(settings.get("layer_norm_epsilon", 1e-5), bias=False),
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        mixer, layer = attention(config), dense(config)
        ratio, rest = divmod(layer.hidden_of(config.width), config.width)
        if rest:
            raise ConversionError("model.feedforward: mpt needs a hidden width that is a multiple of the model's")
        return {
            **self.written_sizes(config),
            "attn_config": {"alibi": True, "clip_qkv": mixer.clip, "softmax_scale": mixer.scale},
            "expansion_ratio": ratio,
            "layer_norm_epsilon": config.norm.epsilon,
            "no_bias": True,
        }


def slopes(num_heads: int) -> tuple[float, ...]:
    """Those of ALiBi for the next power of two, every second one first, as many as there are heads."""
    above = 1 << (num_heads - 1).bit_length()
    found = [2.0 ** (-8 * h / above) for h in range(1, above + 1)]
    return tuple(found if above == num_heads else (found[1::2] + found[::2])[:num_heads])
