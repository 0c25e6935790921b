"""GPT-J: both layers read one norm, neighbours turn together, no biases in attention."""

from __future__ import annotations

from typing import Any

from jaxgpt.convert.families.base import Family
from jaxgpt.convert.families.gpt2 import ENDS, LAYER, NORMS, SIZES, dense
from jaxgpt.convert.families.llama import rope
from jaxgpt.convert.layouts import LINEAR, OUTPUT
from jaxgpt.convert.rules import Rule, linear
from jaxgpt.convert.settings import NAMES, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.norm import LayerNormConfig
from jaxgpt.nn.position.rotary import RopeConfig


class GptJ(Family):
    """Wang & Komatsuzaki 2021, GPT-J-6B."""

    model_type = "gptj"
    architecture = "GPTJForCausalLM"
    sizes = SIZES
    ignored = ("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias")
    rules = (
        *ENDS,
        Rule("mixer/query", LAYER + "attn.q_proj.weight", LINEAR),
        Rule("mixer/key", LAYER + "attn.k_proj.weight", LINEAR),
        Rule("mixer/value", LAYER + "attn.v_proj.weight", LINEAR),
        Rule("mixer/output", LAYER + "attn.out_proj.weight", OUTPUT),
        *linear("feedforward/up", LAYER + "mlp.fc_in"),
        *linear("feedforward/down", LAYER + "mlp.fc_out"),
        *NORMS,
    )

    def config(self, settings: Settings) -> DecoderConfig:
        head_dim = settings["n_embd"] // settings["n_head"]
        return DecoderConfig(
            **self.read_sizes(settings),
            position=RopeConfig(layout="interleaved", fraction=(settings.get("rotary_dim") or head_dim) / head_dim),
            mixer=AttentionConfig(bias=False, output_bias=False),
            feedforward=DenseConfig(settings.activation("activation_function"), settings.get("n_inner")),
            norm=LayerNormConfig(settings["layer_norm_epsilon"]),
            residual="parallel_one_norm",
            bias=True,
            head_bias=True,
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer = dense(config)
        return {
            **self.written_sizes(config),
            "rotary_dim": round(rope(config).fraction * config.layer_dims.head_dim),
            "activation_function": NAMES[layer.activation],
            "n_inner": layer.hidden_of(config.width),
            "layer_norm_epsilon": config.norm.epsilon,
        }
