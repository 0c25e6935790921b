"""DeepSeek-V2: latent attention, experts chosen by a softmax that is never normalised again."""

from __future__ import annotations

from typing import Any

from jaxgpt.convert.families.deepseek_v3 import DeepseekV3
from jaxgpt.convert.rope import read_rope
from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.router.base import RouterConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig


class DeepseekV2(DeepseekV3):
    """DeepSeek-AI 2024 (arXiv:2405.04434)."""

    model_type = "deepseek_v2"
    architecture = "DeepseekV2ForCausalLM"

    def position(self, settings: Settings) -> RopeConfig:
        return read_rope(settings, "interleaved")

    def router(self, settings: Settings) -> RouterConfig:
        settings.only(topk_method=("greedy", "group_limited_greedy"), norm_topk_prob=False)
        grouped = settings.get("topk_method", "greedy") == "group_limited_greedy"
        return SoftmaxRouterConfig(
            settings["num_experts_per_tok"],
            normalise=False,
            scale=float(settings.get("routed_scaling_factor", 1.0)),
            groups=settings["n_group"] if grouped else 1,
            groups_kept=settings["topk_group"] if grouped else 1,
        )

    def router_settings(self, router: RouterConfig) -> dict[str, Any]:
        if not isinstance(router, SoftmaxRouterConfig) or router.bias:
            raise ConversionError("model.feedforward.router: that of deepseek_v2 is softmax, without a bias")
        grouped = router.groups > 1
        return {
            "num_experts_per_tok": router.per_token,
            "norm_topk_prob": router.normalise,
            "routed_scaling_factor": router.scale,
            "topk_method": "group_limited_greedy" if grouped else "greedy",
            "n_group": router.groups if grouped else None,
            "topk_group": router.groups_kept if grouped else None,
        }
