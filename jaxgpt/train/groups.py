"""The optimizer of a run: what a kind makes, for groups of parameters with settings of their own."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import optax
from flax import nnx

from jaxgpt.errors import ConfigError, nearest
from jaxgpt.models.mup import Growth
from jaxgpt.nn.params import declared_decay, flatten
from jaxgpt.train.optimizer.base import Decays, OptimizerConfig, decay_mask, per_parameter


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """Settings of the parameters whose paths match a pattern, as checkpoints name them (`blocks/mixer/query`); `*`
    stands for any text. A parameter belongs to the first group that matches it.

    learning_rate: times that of the others; 0 freezes: no update, no decay, no optimizer state, no part in the norm
        that `gradient_clip` bounds.
    weight_decay: whether it acts on them; null: as on the others, on matrices only.
    """

    match: tuple[str, ...]
    learning_rate: float = 1.0
    weight_decay: bool | None = None

    def __post_init__(self):
        if not self.match:
            raise ValueError("match must name at least one parameter")
        if self.learning_rate < 0:
            raise ValueError(f"learning_rate must not be negative, got {self.learning_rate}")


def make_optimizer(
    config: OptimizerConfig,
    learning_rate: optax.Schedule,
    clip: float | None,
    groups: Sequence[GroupConfig] = (),
    growth: Mapping[str, Growth] | None = None,
) -> optax.GradientTransformation:
    """`config`'s updates at `learning_rate`, of gradients whose global norm is clipped, group by group. `growth`, as
    `ModelConfig.growth` gives it: matrices whose learning rate follows their width, times that of their group.

    Raises ConfigError, once it sees a model, where a pattern matches none of its parameters.
    """

    def decays(model: Any) -> Any:
        def of(path: str, parameter: Any) -> bool:
            wanted = getattr(_group_of(path, groups), "weight_decay", None)
            return declared_decay(parameter) if wanted is None else wanted and isinstance(parameter, nnx.Param)

        return per_parameter(model, of)

    def rates(model: Any) -> Any:
        _require_matches(model, groups)
        return per_parameter(model, lambda path, _: _rate(_group_of(path, groups)))

    def frozen(model: Any) -> Any:
        return per_parameter(model, lambda path, _: not _rate(_group_of(path, groups)))

    def at(factor: float) -> optax.GradientTransformation:
        if not factor:
            return optax.set_to_zero()
        return _by_width(config, lambda step: factor * learning_rate(step), decays, growth or {})

    bound = [] if clip is None else [optax.clip_by_global_norm(clip)]
    if not groups:
        return optax.chain(*bound, _by_width(config, learning_rate, decay_mask, growth or {}))
    parts: dict[Hashable, optax.GradientTransformation] = {factor: at(factor) for factor in {1.0, *map(_rate, groups)}}
    return optax.chain(optax.masked(optax.set_to_zero(), frozen), *bound, optax.partition(parts, rates))


def _by_width(
    config: OptimizerConfig, learning_rate: optax.Schedule, decays: Decays, growth: Mapping[str, Growth]
) -> optax.GradientTransformation:
    """`config`'s updates, with the learning rates of muP for matrices that are not as large as the base model's.

    A step shrinks them by as much as in the base model, learning rate times weight decay, whatever their width
    (Wortsman et al. 2023, arXiv:2309.14322; Wang & Aitchison 2024, arXiv:2405.13698): decay times a rate
    that falls with the width would vanish.
    """
    factors = {path: config.width_factor(one) for path, one in growth.items()}
    if not factors:
        return config.make(learning_rate, decays)

    def at(factor: float) -> optax.GradientTransformation:
        return config.with_decay(1 / factor).make(lambda step: factor * learning_rate(step), decays)

    parts: dict[Hashable, optax.GradientTransformation] = {factor: at(factor) for factor in {1.0, *factors.values()}}
    return optax.partition(parts, lambda model: per_parameter(model, lambda path, _: factors.get(path, 1.0)))


def _rate(group: GroupConfig | None) -> float:
    return 1.0 if group is None else group.learning_rate


def _group_of(path: str, groups: Sequence[GroupConfig]) -> GroupConfig | None:
    matching = (group for group in groups if any(fnmatch.fnmatchcase(path, pattern) for pattern in group.match))
    return next(matching, None)


def _require_matches(model: Any, groups: Sequence[GroupConfig]) -> None:
    names = list(flatten(model))
    for pattern in (pattern for group in groups for pattern in group.match):
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"train.groups: no parameter matches {pattern!r}{nearest(pattern, names)}")
