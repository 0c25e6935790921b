"""GLM-4: norms on both sides, neighbours turn together in part of each head."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

from jaxgpt.convert.families.llama import ATTENTION, ATTENTION_OUT, ENDS, LAYER, Llama, attention
from jaxgpt.convert.families.phi3 import DOWN, GATE_UP
from jaxgpt.convert.layouts import SAME
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig


class Glm4(Llama):
    """GLM team 2024 (arXiv:2406.12793), in the form of GLM-4-0414."""

    model_type = "glm4"
    architecture = "Glm4ForCausalLM"
    biases = ("attention_bias",)
    defaults = MappingProxyType({"partial_rotary_factor": 0.5})
    rules = (
        *ENDS,
        *ATTENTION,
        *ATTENTION_OUT,
        GATE_UP,
        DOWN,
        Rule("mixer_norm/scale", LAYER + "input_layernorm.weight", SAME),
        Rule("mixer_after_norm/scale", LAYER + "post_self_attn_layernorm.weight", SAME),
        Rule("feedforward_norm/scale", LAYER + "post_attention_layernorm.weight", SAME),
        Rule("feedforward_after_norm/scale", LAYER + "post_mlp_layernorm.weight", SAME),
    )

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(settings)
        return dataclasses.replace(
            config,
            position=read_rope(settings, "interleaved"),
            mixer=dataclasses.replace(attention(config), output_bias=False),
            norm_placement="sandwich",
        )
