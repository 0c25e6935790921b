"""The slot of feed-forward layers: what a block does to each token by itself."""

from __future__ import annotations

import dataclasses
from typing import Protocol, Self

from jax import Array

from jaxgpt.nn.mixer.base import LayerDims, MixerContext
from jaxgpt.registry import slot


class FeedForward(Protocol):
    """`feedforward(x, context) -> (y, aux)`; `aux` is a dict of statistics, such as a router's load.

    In `aux`, `loss/...` is added to the training loss.
    """

    def __call__(self, x_BTD: Array, context: MixerContext | None = None) -> tuple[Array, dict[str, Array]]: ...


@slot("feedforward", package="jaxgpt.nn.feedforward")
@dataclasses.dataclass(frozen=True)
class FeedForwardConfig:
    """What a block does to each token by itself."""

    def make(self, dims: LayerDims, key: Array) -> FeedForward:
        raise TypeError(f"{type(self).__qualname__} must define make()")

    def flops_per_token(self, width: int) -> int:
        """Multiply-adds of one token's forward pass, times two."""
        raise TypeError(f"{type(self).__qualname__} must define flops_per_token()")

    def hidden_of(self, width: int) -> int:
        """The hidden width in a model of `width`."""
        raise TypeError(f"{type(self).__qualname__} must define hidden_of()")

    def with_hidden(self, hidden: int) -> Self:
        """The same with another hidden width, by which models are made equally large. Parameters and FLOPs are linear
        in it."""
        return dataclasses.replace(self, hidden=hidden)  # type: ignore[call-arg]  # the kind's own field


def hidden_width(given: int | None, multiplier: float, width: int, multiple_of: int) -> int:
    """The hidden width: as given, or `multiplier * width` rounded up to a multiple of `multiple_of`."""
    if given is not None:
        return given
    return -(-round(multiplier * width) // multiple_of) * multiple_of


def check_hidden(hidden: int | None, multiplier: float) -> None:
    """Raise ValueError for a hidden width or multiplier that is not positive."""
    if hidden is not None and hidden < 1:
        raise ValueError(f"hidden must be at least 1, got {hidden}")
    if multiplier <= 0:
        raise ValueError(f"multiplier must be positive, got {multiplier}")
