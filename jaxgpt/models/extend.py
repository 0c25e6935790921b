"""Context extension as a change of a model's configuration: another rope scaling, the same parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from jaxgpt.config import FrozenMapping
from jaxgpt.errors import ConfigError
from jaxgpt.models.base import ModelConfig
from jaxgpt.nn.position.base import PositionConfig
from jaxgpt.nn.position.rope_scaling import ScalingConfig
from jaxgpt.registry import kind_of

M = TypeVar("M", bound=ModelConfig)


def extend(model: M, scaling: ScalingConfig) -> M:
    """`model` with `scaling` in place of every rope's own, wherever its positions hold one (per layer kind, inside
    another encoding). The original length is `model.train_length`, unless the scaling names another.

    Raises ConfigError where no position of the model has a scaling.
    """
    found: list[PositionConfig] = []
    changed = _change(model, scaling, found)
    if not found:
        kinds = ", ".join(sorted(_positions(model))) or "none"
        raise ConfigError(
            f"extend: rope is what can be scaled, and the model's positional encoding is {kinds}; leave extend out, or "
            "begin with a model that has rope"
        )
    return changed


def _change(config: Any, scaling: ScalingConfig, found: list[PositionConfig]) -> Any:
    """`config` with another scaling of every position below it that has one; these are appended to `found`."""
    if isinstance(config, Mapping):
        return FrozenMapping({key: _change(value, scaling, found) for key, value in config.items()})
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(config, PositionConfig) and field.name == "scaling":
            found.append(config)
            values[field.name] = scaling
        elif dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            values[field.name] = _change(value, scaling, found)
    return dataclasses.replace(config, **values) if values else config


def _positions(config: Any) -> set[str]:
    """Kinds of all positional encodings of a configuration."""
    if isinstance(config, Mapping):
        return set().union(*map(_positions, config.values()))
    if not dataclasses.is_dataclass(config):
        return set()
    own = {kind_of(config)} if isinstance(config, PositionConfig) else set()
    return own.union(*(_positions(getattr(config, field.name)) for field in dataclasses.fields(config)))
