"""DeepSeek-V3: latent attention, experts chosen by corrected sigmoids within groups, the first layers dense."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from jaxgpt.config import FrozenMapping
from jaxgpt.convert.families.base import Family, without
from jaxgpt.convert.families.llama import ENDS, FEEDFORWARD, LAYER, PRE_NORM, gated, rope, rope_settings
from jaxgpt.convert.families.qwen3_moe import EXPERTS, split_layers
from jaxgpt.convert.layouts import FLAT, LINEAR, OUTPUT, SAME, HeadsSplit, Joined
from jaxgpt.convert.rope import read_rope, yarn_mscale
from jaxgpt.convert.rules import Rule, linear
from jaxgpt.convert.settings import NAMES, ConversionError, Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.latent import LatentConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.router.base import RouterConfig
from jaxgpt.nn.router.sigmoid import SigmoidRouterConfig

ATTENTION = LAYER + "self_attn."
SHARED = LAYER + "mlp.shared_experts."
LOW = ("mixer/latent", "mixer/rotary_key")


class DeepseekV3(Family):
    """DeepSeek-AI 2024 (arXiv:2412.19437). Layers that predict further tokens are left out."""

    model_type = "deepseek_v3"
    architecture = "DeepseekV3ForCausalLM"
    sizes = without("head_dim")
    rules = (
        *ENDS,
        *FEEDFORWARD,
        *PRE_NORM,
        *EXPERTS,
        Rule("feedforward/router/correction", LAYER + "mlp.gate.e_score_correction_bias", SAME),
        Rule("feedforward/shared/gate", SHARED + "gate_proj.weight", LINEAR),
        Rule("feedforward/shared/up", SHARED + "up_proj.weight", LINEAR),
        Rule("feedforward/shared/down", SHARED + "down_proj.weight", LINEAR),
        *linear("mixer/query_down", ATTENTION + "q_a_proj"),
        Rule("mixer/query_norm/scale", ATTENTION + "q_a_layernorm.weight", SAME),
        *linear(LOW, ATTENTION + "kv_a_proj_with_mqa", Joined(LINEAR), Joined(FLAT)),
        Rule("mixer/latent_norm/scale", ATTENTION + "kv_a_layernorm.weight", SAME),
        Rule(("mixer/key", "mixer/value"), ATTENTION + "kv_b_proj.weight", HeadsSplit()),
        *linear("mixer/output", ATTENTION + "o_proj", OUTPUT),
    )

    def rules_of(self, config: DecoderConfig) -> tuple[Rule, ...]:
        query = "q_proj" if latent(config).query_rank is None else "q_b_proj"
        return (*self.rules, Rule("mixer/query", ATTENTION + f"{query}.weight", LINEAR))

    def ignored_of(self, config: DecoderConfig, names: Collection[str]) -> tuple[str, ...]:
        further = f"model.layers.{config.num_layers}"  # a layer that predicts one more token, known by its projection
        return (*self.ignored, f"{further}.*") if f"{further}.eh_proj.weight" in names else self.ignored

    def config(self, settings: Settings) -> DecoderConfig:
        sizes = self.read_sizes(settings)
        sizes["num_kv_heads"] = None  # all heads have their own; files say any number
        bias = settings.get("attention_bias", False)
        position = self.position(settings)
        mixer = LatentConfig(
            kv_rank=settings["kv_lora_rank"],
            query_rank=settings.get("q_lora_rank"),
            plain_width=settings["qk_nope_head_dim"],
            rotary_width=settings["qk_rope_head_dim"],
            value_width=settings["v_head_dim"],
            scale=_scale(settings),
            bias=bias,
            output_bias=bias,
        )
        return DecoderConfig(
            **sizes,
            head_dim=mixer.plain_width + mixer.rotary_width,
            position=position,
            mixer=mixer,
            norm=RMSNormConfig(settings["rms_norm_eps"]),
            **self._layers(settings),
        )

    def position(self, settings: Settings) -> RopeConfig:
        interleaved = settings.get("rope_interleave", True)
        return read_rope(settings, "interleaved" if interleaved else "half_split")

    def router(self, settings: Settings) -> RouterConfig:
        return SigmoidRouterConfig(
            settings["num_experts_per_tok"],
            normalise=settings.get("norm_topk_prob", True),
            scale=float(settings.get("routed_scaling_factor", 1.0)),
            groups=settings.get("n_group") or 1,
            groups_kept=settings.get("topk_group") or 1,
        )

    def _layers(self, settings: Settings) -> dict[str, Any]:
        count, first = settings["num_hidden_layers"], settings.get("first_k_dense_replace", 0)
        settings.only(moe_layer_freq=1)
        dense, width = gated(settings), settings["moe_intermediate_size"]
        expert = dataclasses.replace(dense, hidden=width)
        shared = settings.get("n_shared_experts") or 0
        mixture = MixtureConfig(
            experts=settings["n_routed_experts"],
            expert=expert,
            router=self.router(settings),
            shared=dataclasses.replace(dense, hidden=width * shared) if shared else None,
            balance_loss=0.0,
        )
        if first == 0:
            return {"feedforward": mixture}
        if first >= count:
            return {"feedforward": dense}
        kinds = {"first_layers": ("dense",) * first, "pattern": ("mixture",)}
        return {**kinds, "feedforward": FrozenMapping({"dense": dense, "mixture": mixture})}

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        mixer = latent(config)
        dense, layer, only = split_layers(config)
        if not isinstance(layer, MixtureConfig) or only != list(range(len(only))):
            raise ConversionError("model.feedforward: the first layers may be dense, the others are mixtures")
        expert = layer.expert
        if not isinstance(expert, GatedConfig):
            raise ConversionError("model.feedforward.expert: those of deepseek are gated")
        width = expert.hidden_of(config.width)
        shared = 0 if layer.shared is None else layer.shared.hidden_of(config.width)
        if shared % width:
            raise ConversionError("model.feedforward.shared: must be as wide as a number of experts")
        found = {
            **self.written_sizes(config),
            **rope_settings(config),
            **self.router_settings(layer.router),
            "kv_lora_rank": mixer.kv_rank,
            "q_lora_rank": mixer.query_rank,
            "qk_nope_head_dim": mixer.plain_width,
            "qk_rope_head_dim": mixer.rotary_width,
            "qk_head_dim": mixer.plain_width + mixer.rotary_width,
            "head_dim": mixer.rotary_width,
            "v_head_dim": mixer.value_width,
            "attention_bias": mixer.bias,
            "rope_interleave": rope(config).layout == "interleaved",
            "rms_norm_eps": config.norm.epsilon,
            "hidden_act": NAMES[expert.activation],
            "intermediate_size": width if dense is None else dense.hidden_of(config.width),
            "moe_intermediate_size": width,
            "n_routed_experts": layer.experts,
            "n_shared_experts": shared // width or None,
            "first_k_dense_replace": len(only),
        }
        return _with_scale(found, mixer)

    def router_settings(self, router: RouterConfig) -> dict[str, Any]:
        if not isinstance(router, SigmoidRouterConfig):
            raise ConversionError("model.feedforward.router: that of deepseek_v3 is sigmoid")
        return {
            "num_experts_per_tok": router.per_token,
            "norm_topk_prob": router.normalise,
            "routed_scaling_factor": router.scale,
            "n_group": router.groups,
            "topk_group": router.groups_kept,
        }


def latent(config: DecoderConfig) -> LatentConfig:
    """The latent attention of all layers of a decoder."""
    if not isinstance(config.mixer, LatentConfig):
        raise ConversionError("model.mixer must be latent, one for all layers")
    return config.mixer


def _scale(settings: Settings) -> float | None:
    """YaRN's temperature acts on scores, once for queries and once for keys; None: none does."""
    given = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not given.get("mscale_all_dim") or given.get("rope_type", given.get("type", "default")) == "default":
        return None
    width = settings["qk_nope_head_dim"] + settings["qk_rope_head_dim"]
    return width**-0.5 * yarn_mscale(float(given["factor"]), given["mscale_all_dim"]) ** 2


def _with_scale(found: dict[str, Any], mixer: LatentConfig) -> dict[str, Any]:
    """Settings whose `rope_parameters` say a scale of scores that is not the usual one, in the terms of YaRN."""
    width = mixer.plain_width + mixer.rotary_width
    given = found["rope_parameters"]
    if mixer.scale is None or given["rope_type"] != "yarn":
        return found
    all_dim = ((mixer.scale * width**0.5) ** 0.5 - 1) / (yarn_mscale(given["factor"], 1.0) - 1)
    temperature = given.pop("attention_factor", None) or yarn_mscale(given["factor"], 1.0)
    one = (temperature * yarn_mscale(given["factor"], all_dim) - 1) / (yarn_mscale(given["factor"], 1.0) - 1)
    return {**found, "rope_parameters": {**given, "mscale": one, "mscale_all_dim": all_dim}}
