"""Phi-3: Llama with joined matrices."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgpt.convert.families.base import layer_types, without
from jaxgpt.convert.families.llama import ATTENTION_OUT, ENDS, LAYER, PRE_NORM, Llama, rope
from jaxgpt.convert.layouts import LINEAR, Joined
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.position.longrope import LongRopeConfig

QKV = ("mixer/query", "mixer/key", "mixer/value")
GATE_UP = Rule(("feedforward/gate", "feedforward/up"), LAYER + "mlp.gate_up_proj.weight", Joined(LINEAR))
DOWN = Rule("feedforward/down", LAYER + "mlp.down_proj.weight", LINEAR)


class Phi3(Llama):
    """Abdin et al. 2024 (arXiv:2404.14219)."""

    model_type = "phi3"
    architecture = "Phi3ForCausalLM"
    biases = ()
    sizes = without("head_dim")
    rules = (
        *ENDS,
        Rule(QKV, LAYER + "self_attn.qkv_proj.weight", Joined(LINEAR)),
        *ATTENTION_OUT,
        GATE_UP,
        DOWN,
        *PRE_NORM,
    )

    def config(self, settings: Settings) -> DecoderConfig:
        scaling = settings.get("rope_scaling") or {}
        if "long_factor" in scaling:  # early files say su or yarn
            values = {**settings, "rope_scaling": {**scaling, "type": "longrope", "rope_type": "longrope"}}
            settings = Settings(values, settings.place)
        return dataclasses.replace(super().config(settings), window=settings.get("sliding_window"))

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        _, window = layer_types(config)
        found = {**super().settings(config), "sliding_window": window}
        scaling = rope(config).scaling
        if isinstance(scaling, LongRopeConfig):
            found["original_max_position_embeddings"] = scaling.original_length or config.layer_dims.train_length
        return found
