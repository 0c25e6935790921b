"""OLMo 2: norms behind the layers, queries and keys normalised over all heads."""

from __future__ import annotations

import dataclasses

from jaxgpt.convert.families.base import without
from jaxgpt.convert.families.llama import (
    ATTENTION,
    ATTENTION_OUT,
    ENDS,
    FEEDFORWARD,
    LAYER,
    QK_NORM,
    Llama,
    attention,
)
from jaxgpt.convert.layouts import SAME
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig


class Olmo2(Llama):
    """OLMo team 2024 (arXiv:2501.00656)."""

    model_type = "olmo2"
    architecture = "Olmo2ForCausalLM"
    biases = ("attention_bias",)
    sizes = without("head_dim")
    rules = (
        *ENDS,
        *ATTENTION,
        *ATTENTION_OUT,
        *QK_NORM,
        *FEEDFORWARD,
        Rule("mixer_norm/scale", LAYER + "post_attention_layernorm.weight", SAME),
        Rule("feedforward_norm/scale", LAYER + "post_feedforward_layernorm.weight", SAME),
    )

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(settings)
        mixer = dataclasses.replace(attention(config), qk_norm=True, qk_norm_over="width", qk_norm_kind=config.norm)
        return dataclasses.replace(config, mixer=mixer, norm_placement="branch")
