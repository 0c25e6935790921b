"""Maximal update parametrisation (muP): a learning rate found on a narrow model fits a wide one.

Yang et al. 2022 (Tensor Programs V, arXiv:2203.03466, tables 3 and 8) let what a model draws, computes and learns
follow its width, so that training moves activations by as much in wide models as in narrow ones. All is relative to a
base model, which muP leaves as it is. With m for the inputs of a matrix over those of the base model's, for Adam:

| parameters | standard deviation | learning rate |
|---|---|---|
| matrices with more inputs and more outputs | / sqrt(m) | / m |
| matrices with more inputs only: routers, maps to latents, keys and values of as many heads | / m | / m |
| matrices with as many inputs, embeddings, gains, biases | | |
| the head, tied or not | | |

Logits are divided by m. Scores of attention are divided by the head width instead of its root where heads are wider
than the base model's; an `embedding_scale` of sqrt_width is the base model's. Which line holds for a parameter is read
off its named axes and the shapes of both models, and so for every mixer, feed-forward layer and router.

The base model is the same configuration with the changes in `mup_base`, which all models of a sweep share:

    python -m jaxgpt.train --set model.width=512 model.num_heads=16 model.mup_base.width=128 model.mup_base.num_heads=4

Optimizers follow by `OptimizerConfig.width_factor`; `train/groups.py` says what becomes of weight decay.
`experiments/coordinate_check.py` shows activations against width. Adam's epsilon is not scaled: in very wide models,
whose gradients are small, lower it (Wortsman et al. 2023, arXiv:2309.14322).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from flax import nnx

from jaxgpt.config import FrozenMapping, decode, encode, merge
from jaxgpt.errors import ConfigError
from jaxgpt.nn.params import TABLES, flatten, sides, unflatten, variables

T = TypeVar("T")

FIXED = ("layer", "expert", *TABLES)
"""Names of dimensions that are no width: the base model has as many."""


class Growth(NamedTuple):
    """The sides of a matrix, and those of the base model's."""

    inputs: int
    outputs: int
    base_inputs: int
    base_outputs: int

    @property
    def std(self) -> float:
        """What the standard deviation is multiplied by."""
        return self.rate if self.outputs == self.base_outputs else math.sqrt(self.rate)

    @property
    def rate(self) -> float:
        """What the learning rate is multiplied by where every element moves by about that rate, as Adam moves them."""
        return self.base_inputs / self.inputs


def base_of(config: T, changes: Mapping[str, Any]) -> T:
    """`config` with `changes`, a part of its plain values, and without a base of its own. Raises ValueError for what
    is no part of it."""
    plain = merge({**encode(config), "mup_base": None}, changes)
    try:
        return decode(type(config), plain, "mup_base")
    except ConfigError as error:
        text = str(error)
        raise ValueError(text if text.startswith("mup_base") else f"mup_base: {text}") from None


def growth_of(model: Any, base: Any) -> dict[str, Growth]:
    """The matrices of a model that are not as large as the base model's, by path. Both may be abstract.

    Raises ConfigError where they differ in more than widths.
    """
    ours, theirs, found = variables(model), variables(base), {}
    if alone := sorted(ours.keys() ^ theirs.keys()):
        raise ConfigError(f"model.mup_base: only one of the two models has {alone[0]}; they may differ in widths only")
    for path, variable in ours.items():
        for (name, size), (_, other) in zip(_dimensions(variable), _dimensions(theirs[path]), strict=True):
            if name in FIXED and size != other:
                raise ConfigError(
                    f"model.mup_base: {path} has {other} along {name!r} there and {size} here; the two models may "
                    "differ in widths only"
                )
        one, other = _sides(variable), _sides(theirs[path])
        if one is not None and other is not None and one != other:
            found[path] = Growth(*one, *other)
    return found


def _dimensions(variable: nnx.Variable) -> list[tuple[str | None, int]]:
    """Name and size of every dimension; those before the named ones run over the layers of a stack."""
    axes, shape = variable.get_metadata()["axes"], variable.get_raw_value().shape
    return list(zip(["layer"] * (len(shape) - len(axes)) + list(axes), shape, strict=True))


def _sides(variable: nnx.Variable) -> tuple[int, int] | None:
    found, shape = sides(variable), variable.get_raw_value().shape
    if found is None:
        return None
    inputs, outputs = (math.prod(shape[dimension] for dimension in side) for side in found)
    return inputs, outputs


def scaled(model: T, growth: Mapping[str, Growth]) -> T:
    """A freshly drawn model with the deviations of its widths."""
    arrays = flatten(model)
    return unflatten(model, {path: x * growth[path].std if path in growth else x for path, x in arrays.items()})


def frozen(value: Any) -> Any:
    """Plain values that can be hashed."""
    if isinstance(value, Mapping):
        return FrozenMapping({key: frozen(one) for key, one in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value
