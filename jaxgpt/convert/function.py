"""What a configuration computes, given weights: two that compute the same become equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxgpt.config import FrozenMapping
from jaxgpt.convert.settings import ConversionError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.stack import of_kind
from jaxgpt.nn.attention.latent import LatentConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.mixer.base import LayerDims, MixerConfig
from jaxgpt.nn.norm import LayerNormConfig, NormConfig, RMSNormConfig
from jaxgpt.nn.position.absolute import LearnedConfig
from jaxgpt.nn.position.alibi import AlibiConfig, slopes
from jaxgpt.nn.position.base import PositionConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.router.sigmoid import SigmoidRouterConfig


def spelt(config: DecoderConfig) -> DecoderConfig:
    """`config` with every default of its parts spelt out, so that none goes by the model around it or by muP's base.
    Raises ConversionError where that cannot be."""
    dims = config.layer_dims

    def each(value: Any, spell: Callable[[Any, LayerDims], Any]) -> Any:
        if isinstance(value, Mapping):
            return FrozenMapping({kind: spell(one, dims) for kind, one in value.items()})
        return spell(value, dims)

    if config.head_bias and config.base.width != config.width:
        raise ConversionError("muP divides the head's products by the width, but not its bias, which no family can say")
    return dataclasses.replace(
        config,
        mup_base=None,
        logit_scale=config.logit_scale * (config.base.width / config.width),
        embedding_scale=config.embedding_factor,
        position=each(config.position, _position),
        mixer=each(config.mixer, _mixer),
        feedforward=each(config.feedforward, _feedforward),
        norm=_norm(config.norm, dims),
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        train_length=dims.train_length,
    )


def function(config: DecoderConfig) -> DecoderConfig:
    """`config` spelt out, with every layer named by its number, and without what changes no output of given weights:
    how they are drawn, dropout, losses, types, how layers run."""
    kinds, config = config.order.kinds, spelt(config)
    names = [str(number) for number in range(len(kinds))]
    fields = {}
    for field in ("position", "window", "mixer", "feedforward"):
        found = [of_kind(getattr(config, field), kind) for kind in kinds]
        fields[field] = FrozenMapping(dict(zip(names, map(_bare, found), strict=True)))
    if all(isinstance(of_kind(config.mixer, kind), LatentConfig) for kind in kinds):  # which has widths of its own
        config = dataclasses.replace(config, num_kv_heads=config.num_heads, head_dim=1)
    return dataclasses.replace(
        config,
        first_layers=(),
        pattern=tuple(names),
        **fields,
        bias=False,  # spelt out in all that go by it
        embedding_dropout=0.0,
        attention_dropout=0.0,
        residual_dropout=0.0,
        init_std=0.02,
        scale_residual_init=True,
        compute_dtype="float32",
        layers=None,
        remat=False,
    )


def _bare(part: Any) -> Any:
    """A part without what acts in training only, and without the choice of an implementation."""
    changes: dict[str, Any] = {}
    if hasattr(part, "implementation"):
        changes["implementation"] = None
    if isinstance(part, MixtureConfig):
        changes |= {"capacity": None, "balance_loss": 0.0, "z_loss": 0.0}
        if isinstance(part.router, SigmoidRouterConfig):
            changes["router"] = dataclasses.replace(part.router, correction_rate=0.0)
    return dataclasses.replace(part, **changes) if changes else part


def _norm(norm: NormConfig, dims: LayerDims) -> NormConfig:
    if isinstance(norm, LayerNormConfig) and norm.bias is None:
        return dataclasses.replace(norm, bias=dims.bias)
    return norm


def _mixer(mixer: MixerConfig, dims: LayerDims) -> MixerConfig:
    if isinstance(mixer, LatentConfig):
        width = mixer.plain_width + mixer.rotary_width
        return dataclasses.replace(
            mixer,
            bias=dims.has_bias(mixer.bias),
            output_bias=dims.has_bias(mixer.output_bias),
            scale=width**-0.5 if mixer.scale is None else mixer.scale,
        )
    if not isinstance(mixer, AttentionConfig):
        return mixer
    kind = _norm(mixer.qk_norm_kind or RMSNormConfig(epsilon=1e-6), dims)
    return dataclasses.replace(
        mixer,
        bias=dims.has_bias(mixer.bias),
        output_bias=dims.has_bias(mixer.output_bias),
        scale=mixer.score_factor(dims),
        qk_norm_kind=kind if mixer.qk_norm else None,
        qk_norm_over=mixer.qk_norm_over if mixer.qk_norm else "head",
    )


def _feedforward(layer: FeedForwardConfig, dims: LayerDims) -> FeedForwardConfig:
    """With its hidden width and bias; a mixture's parts are feed-forward layers too."""
    if isinstance(layer, MixtureConfig):
        return dataclasses.replace(
            layer,
            expert=_feedforward(layer.expert, dims),
            shared=None if layer.shared is None else _feedforward(layer.shared, dims),
        )
    spelt = layer.with_hidden(layer.hidden_of(dims.width))
    changes: dict[str, Any] = {"multiplier": 1.0}
    if hasattr(layer, "multiple_of"):
        changes["multiple_of"] = 1
    bias = getattr(layer, "bias", None)
    return dataclasses.replace(spelt, bias=dims.has_bias(bias), **changes)  # type: ignore[call-arg]


def _position(position: PositionConfig, dims: LayerDims) -> PositionConfig:
    match position:
        case AlibiConfig(slopes=None):
            return AlibiConfig(slopes(dims.num_heads))
        case LearnedConfig():
            return LearnedConfig(position.num_positions or dims.train_length, position.beyond)
        case RopeConfig(scaling=scaling) if scaling is not None:
            original = scaling.original_length or dims.train_length
            return dataclasses.replace(position, scaling=dataclasses.replace(scaling, original_length=original))
    return position
