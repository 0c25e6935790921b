"""gpt-oss: sinks, windows in every other layer, bounded experts with biases."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

from jaxgpt.convert.families.base import layer_types, windows
from jaxgpt.convert.families.llama import ATTENTION, ATTENTION_OUT, ENDS, LAYER, PRE_NORM, Llama, attention
from jaxgpt.convert.families.mixtral import mixture
from jaxgpt.convert.layouts import LINEAR, SAME, Interleaved
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.clamped import ClampedConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig

EXPERTS = LAYER + "mlp.experts."


class GptOss(Llama):
    """OpenAI 2025 (arXiv:2508.10925). Experts in MXFP4 must be unpacked first: load and save them with transformers."""

    model_type = "gpt_oss"
    architecture = "GptOssForCausalLM"
    biases = ("attention_bias",)
    defaults = MappingProxyType({"rope_theta": 150_000.0, "attention_bias": True})
    rules = (
        *ENDS,
        *ATTENTION,
        *ATTENTION_OUT,
        *PRE_NORM,
        Rule("mixer/sinks", LAYER + "self_attn.sinks", SAME),
        Rule("feedforward/router/weight", LAYER + "mlp.router.weight", LINEAR),
        Rule("feedforward/router/bias", LAYER + "mlp.router.bias", SAME),
        Rule(("feedforward/experts/gate", "feedforward/experts/up"), EXPERTS + "gate_up_proj", Interleaved()),
        Rule(
            ("feedforward/experts/gate_bias", "feedforward/experts/up_bias"),
            EXPERTS + "gate_up_proj_bias",
            Interleaved(),
        ),
        Rule("feedforward/experts/down", EXPERTS + "down_proj", SAME),
        Rule("feedforward/experts/down_bias", EXPERTS + "down_proj_bias", SAME),
    )

    def config(self, settings: Settings) -> DecoderConfig:
        config = super().config(Settings({**settings, "hidden_act": "silu"}, settings.place))
        count = settings["num_hidden_layers"]
        types = settings.get("layer_types") or [
            "full_attention" if i % 2 else "sliding_attention" for i in range(count)
        ]
        expert = ClampedConfig(
            hidden=settings["intermediate_size"],
            bias=True,
            slope=settings.get("swiglu_alpha", 1.702),
            limit=settings.get("swiglu_limit", 7.0),
        )
        layer = MixtureConfig(
            experts=settings["num_local_experts"],
            expert=expert,
            router=SoftmaxRouterConfig(settings["num_experts_per_tok"], bias=True),
            balance_loss=settings.get("router_aux_loss_coef", 0.9),
        )
        mixer = dataclasses.replace(attention(config), sinks=True)
        return dataclasses.replace(
            config, mixer=mixer, feedforward=layer, **windows(types, settings.get("sliding_window"))
        )

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        layer, expert, router = mixture(config)
        if not isinstance(expert, ClampedConfig):
            raise ConversionError("model.feedforward.expert: those of gpt_oss are clamped")
        types, window = layer_types(config)
        plain = dataclasses.replace(config, feedforward=GatedConfig(hidden=expert.hidden_of(config.width), bias=False))
        return {
            **super().settings(plain),
            "swiglu_alpha": expert.slope,
            "swiglu_limit": expert.limit,
            "num_local_experts": layer.experts,
            "num_experts_per_tok": router.per_token,
            "router_aux_loss_coef": layer.balance_loss,
            "layer_types": types,
            "sliding_window": window,
        }
