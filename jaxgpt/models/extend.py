"""Context extension as a change of a model's configuration: another rope scaling, the same parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxgpt.config import FrozenMapping
from jaxgpt.errors import ConfigError
from jaxgpt.models.base import ModelConfig
from jaxgpt.nn.position.base import PositionConfig
from jaxgpt.nn.position.rope_scaling import ScalingConfig
from jaxgpt.registry import kind_of

M = TypeVar("M", bound=ModelConfig)
Change = Callable[[ScalingConfig | None], ScalingConfig | None]


def extend(model: M, scaling: ScalingConfig, original_length: int) -> M:
    """`model` with `scaling` in place of every rope's own, wherever its positions hold one (per layer kind, inside
    another encoding). `original_length` is the training length of the weights, unless the scaling names another.

    Raises ConfigError where no position of the model has a scaling.
    """
    if scaling.original_length is None:
        scaling = dataclasses.replace(scaling, original_length=original_length)
    found: list[PositionConfig] = []
    changed = _change(model, lambda _: scaling, found)
    if not found:
        kinds = ", ".join(sorted(_positions(model))) or "none"
        raise ConfigError(
            f"extend: rope is what can be scaled, and the model's positional encoding is {kinds}; leave extend out, or "
            "begin with a model that has rope"
        )
    return changed


def pin_original_length(model: M, original_length: int) -> M:
    """`model` with `original_length` in every scaling that left it to the training length: for weights of another
    training length than the model's."""

    def pin(scaling: ScalingConfig | None) -> ScalingConfig | None:
        if scaling is None or scaling.original_length is not None:
            return scaling
        return dataclasses.replace(scaling, original_length=original_length)

    return _change(model, pin, [])


def _change(config: Any, change: Change, found: list[PositionConfig]) -> Any:
    """`config` with `change` applied to the scaling of every position below it; these are appended to `found`."""
    if isinstance(config, Mapping):
        return FrozenMapping({key: _change(value, change, found) for key, value in config.items()})
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(config, PositionConfig) and field.name == "scaling":
            found.append(config)
            values[field.name] = change(value)
        elif dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            values[field.name] = _change(value, change, found)
    return dataclasses.replace(config, **values) if values else config


def _positions(config: Any) -> set[str]:
    """Kinds of all positional encodings of a configuration."""
    if isinstance(config, Mapping):
        return set().union(*map(_positions, config.values()))
    if not dataclasses.is_dataclass(config):
        return set()
    own = {kind_of(config)} if isinstance(config, PositionConfig) else set()
    return own.union(*(_positions(getattr(config, field.name)) for field in dataclasses.fields(config)))
