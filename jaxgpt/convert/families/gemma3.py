"""Gemma 3, the language model: other angles in layers with a window, normalised queries and keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxgpt.config import FrozenMapping
from jaxgpt.convert.families.base import TYPES
from jaxgpt.convert.families.gemma2 import Gemma2
from jaxgpt.convert.families.llama import QK_NORM, attention
from jaxgpt.convert.rope import read_rope, written_rope
from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.stack import of_kind
from jaxgpt.nn.position.rotary import RopeConfig


class Gemma3(Gemma2):
    """Gemma team 2025 (arXiv:2503.19786)."""

    model_type = "gemma3_text"
    architecture = "Gemma3ForCausalLM"
    rules = (*Gemma2.rules, *QK_NORM)
    period = 6

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(settings)
        mixer = dataclasses.replace(attention(config), qk_norm=True, qk_norm_kind=config.norm)
        return dataclasses.replace(config, mixer=mixer, position=self._position(settings, config))

    def _position(self, settings: Settings, config: DecoderConfig) -> Any:
        ropes = {ours: read_rope(settings, kind=theirs) for theirs, ours in TYPES.items()}
        if "rope_parameters" not in settings and "rope_theta" not in settings:
            ropes["global"] = dataclasses.replace(ropes["global"], theta=1e6)
        if "rope_local_base_freq" in settings:  # the older spelling: the scaling is for layers without a window
            ropes["local"] = RopeConfig(float(settings["rope_local_base_freq"]))
        if isinstance(config.window, Mapping):
            return FrozenMapping(ropes)
        return ropes["global" if config.window is None else "local"]

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        found = super().settings(dataclasses.replace(config, position=RopeConfig()))
        length = config.layer_dims.train_length
        ropes: dict[str, Any] = {"sliding_attention": written_rope(RopeConfig(), length)}
        ropes["full_attention"] = dict(ropes["sliding_attention"])
        for kind, theirs in zip(config.order.kinds, found["layer_types"], strict=True):
            one = of_kind(config.position, kind)
            if not isinstance(one, RopeConfig):
                raise ConversionError("model.position must be rope in all layers")
            ropes[theirs] = written_rope(one, length)
        return {**found, "rope_parameters": ropes}
