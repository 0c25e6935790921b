"""Rotary settings of checkpoints: `rope_parameters`, or the older `rope_theta`, `rope_scaling` and the like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.errors import nearest
from jaxgpt.nn.position.longrope import LongRopeConfig
from jaxgpt.nn.position.rope_scaling import DynamicNtkConfig, LinearConfig, Llama3Config, ScalingConfig, YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig

KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope", "su")


def read_rope(
    settings: Settings,
    layout: Literal["half_split", "interleaved"] = "half_split",
    kind: str | None = None,
) -> RopeConfig:
    """The rotary encoding of a `config.json`.

    layout: which dimensions turn together, which is a family's own. kind: the `layer_types` it is for, where they
    differ.
    """
    given = _given(settings, kind)
    shares = (where.get("partial_rotary_factor") for where in (given, settings))
    share = next((share for share in shares if share is not None), 1.0)
    return RopeConfig(
        theta=float(given["rope_theta"]),
        layout=layout,
        fraction=float(share),
        scaling=_scaling(given, settings),
    )


def _given(settings: Settings, kind: str | None) -> Mapping[str, Any]:
    """The rotary settings in the newer form, a flat mapping."""
    given = settings.get("rope_parameters")
    if given is not None and kind is not None and kind in given:
        given = given[kind]
    if given is None:
        scaling = dict(settings.get("rope_scaling") or {"rope_type": "default"})
        given = {**scaling, "rope_type": scaling.get("rope_type", scaling.get("type"))}
    return {"rope_theta": settings.get("rope_theta", 10_000.0), **given}


def _scaling(given: Mapping[str, Any], settings: Settings) -> ScalingConfig | None:
    kind = given.get("rope_type", "default")
    if kind not in KINDS:
        raise ConversionError(
            f"{settings.place}: rope_type is {kind!r}, which is not supported{nearest(str(kind), KINDS)}"
        )
    longest = settings.get("max_position_embeddings")
    # Transformers prefers the one that stands outside (Phi-3) where there are two.
    name = "original_max_position_embeddings"
    original = settings.get(name) or given.get(name) or longest
    factor = given.get("factor")
    match kind:
        case "linear":
            return LinearConfig(float(given["factor"]))
        case "dynamic":
            return DynamicNtkConfig(float(given["factor"]), longest)
        case "llama3":
            low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
            return Llama3Config(float(given["factor"]), original, low, high)
        case "yarn":
            factor = float(factor if factor is not None else longest / original)
            return YarnConfig(
                factor,
                original,
                beta_fast=float(given.get("beta_fast") or 32),
                beta_slow=float(given.get("beta_slow") or 1),
                truncate=given.get("truncate", True),
                attention_factor=_yarn_temperature(given, factor),
            )
        case "longrope" | "su":
            factor = float(factor) if factor is not None else longest / original
            short, long = (tuple(map(float, given[name])) for name in ("short_factor", "long_factor"))
            attention = given.get("attention_factor")
            return LongRopeConfig(factor, original, short, long, None if attention is None else float(attention))
    return None


def _yarn_temperature(given: Mapping[str, Any], factor: float) -> float | None:
    """Of cos and sin; None: YaRN's own."""
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])
    if given.get("mscale") and given.get("mscale_all_dim"):
        return yarn_mscale(factor, given["mscale"]) / yarn_mscale(factor, given["mscale_all_dim"])
    return None


def yarn_mscale(factor: float, mscale: float) -> float:
    """0.1 m ln(s) + 1."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def written_rope(rope: RopeConfig, train_length: int) -> dict[str, Any]:
    """`rope_parameters`. Raises ConversionError for scalings that transformers does not have."""
    found: dict[str, Any] = {
        "rope_theta": rope.theta,
        "rope_type": "default",
        "partial_rotary_factor": rope.fraction,
    }
    scaling = rope.scaling
    match scaling:
        case None:
            return found
        case LinearConfig():
            return {**found, "rope_type": "linear", "factor": scaling.factor}
        case DynamicNtkConfig():
            return {**found, "rope_type": "dynamic", "factor": scaling.factor}
    found |= {"factor": scaling.factor, "original_max_position_embeddings": scaling.original_length or train_length}
    match scaling:
        case Llama3Config():
            low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
            return {**found, "rope_type": "llama3", "low_freq_factor": low, "high_freq_factor": high}
        case YarnConfig(ramp="index"):
            bounds = {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
            own = scaling.attention_factor
            return {**found, "rope_type": "yarn", **bounds, **({} if own is None else {"attention_factor": own})}
        case LongRopeConfig(short_factors=short, long_factors=long) if short is not None and long is not None:
            own = scaling.attention_factor
            lists = {"short_factor": list(short), "long_factor": list(long)}
            return {**found, "rope_type": "longrope", **lists, **({} if own is None else {"attention_factor": own})}
    raise ConversionError(f"position.scaling: transformers has no {scaling}")
