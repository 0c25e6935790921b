"""The slot of token mixers: what lets a token see others. Attention is one of them, recurrent layers will be more."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.position.base import PositionEncoding, Positions
from jaxgpt.ops.fused import Rows
from jaxgpt.registry import slot


@dataclasses.dataclass(frozen=True)
class LayerDims:
    """What a layer's parts may know of the model around them."""

    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    bias: bool  # linear maps have a bias
    dropout: float  # of attention weights
    init_std: float  # of every matrix ...
    residual_std: float  # ... but those that write to the residual stream
    train_length: int = 1024  # tokens a training sequence holds
    base_head_dim: int | None = None  # of the base model that muP goes by; None: there is none

    def has_bias(self, own: bool | None) -> bool:
        """Whether a part has a bias, given its own setting (None: as the model says)."""
        return self.bias if own is None else own


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """Causal, within a document, optionally within a window. Called on blocks, so nothing of size T x S is kept."""

    window: int | None = dataclasses.field(default=None, metadata={"static": True})  # tokens seen, the own included

    def __call__(self, q: Positions, k: Positions) -> Array:
        """bool [B or 1, T, S], True where a query may look at a key."""
        behind = q.index[:, :, None] - k.index[:, None, :]
        visible = (behind >= 0) & (q.segment[:, :, None] == k.segment[:, None, :]) & (k.segment[:, None, :] > 0)
        if self.window is not None:
            visible &= behind < self.window
        return visible


CAPTURES = {
    "attention": "float32 [B, N, T, S], the weights of every head; differential attention: of both heads of a pair",
    "router": "float32 [B, T, E], the probabilities of experts",
    "mixer": "[B, T, D], what the mixer adds to the residual stream",
    "feedforward": "[B, T, D], what the feed-forward layer adds to it",
    "residual": "[B, T, D], the stream behind the layer",
}
"""What layers can be asked to give out in `aux`, by name, and what it is."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MixerContext:
    """What a layer is told beside its input."""

    positions: Positions
    position: PositionEncoding
    mask: Mask
    at: Array | None = None  # where in the state new tokens are written; None without a state
    key: Array | None = None  # randomness of dropout; None: no dropout
    tokens: Array | None = None  # int [B, T]: their numbers in the vocabulary
    place: Array | None = None  # int [B or 1, T] in the document, before positions were reassigned; None: as they are
    capture: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})  # of `CAPTURES`
    one_document: bool = dataclasses.field(default=False, metadata={"static": True})  # each row is one, without padding

    @property
    def rows(self) -> Rows:
        """The mask in words, of a layer without a state."""
        return Rows(None if self.one_document else self.positions.segment, self.mask.window)

    def visible(self) -> Array:
        """int [B or 1, T]: how many keys each query sees, its own included. At least 1."""
        place = self.positions.position if self.place is None else self.place
        return place + 1 if self.mask.window is None else jnp.minimum(place + 1, self.mask.window)


class Mixer(Protocol):
    """`mixer(x, context, state) -> (y, state, aux)`; `state` is a cache or None, `aux` a dict of statistics."""

    def __call__(self, x_BTD: Array, context: MixerContext, state: Any) -> tuple[Array, Any, dict[str, Array]]: ...

    def init_state(self, batch: int, length: int, dtype: jnp.dtype, window: int | None = None) -> Any:
        """An empty state for `length` tokens of which each sees the last `window` at most."""
        ...


@slot("mixer", package="jaxgpt.nn")
@dataclasses.dataclass(frozen=True)
class MixerConfig:
    """How a token learns from the tokens before it."""

    grows_by_head = False  # whether muP knows what to do where heads are wider than the base model's

    def make(self, dims: LayerDims, key: Array) -> Mixer:
        raise TypeError(f"{type(self).__qualname__} must define make()")

    def flops_per_token(self, dims: LayerDims, sequence_length: int) -> int:
        """Multiply-adds times two of one forward pass; pairs of tokens that a mask hides count too."""
        raise TypeError(f"{type(self).__qualname__} must define flops_per_token()")

    def check(self, dims: LayerDims) -> None:
        """Raise ValueError where the config does not fit `dims`; models ask when they are configured."""

    def position_width(self, dims: LayerDims) -> int:
        """The width of what positional encodings act on, for them the head width."""
        return dims.head_dim

    @classmethod
    def examples(cls) -> tuple[MixerConfig, ...]:
        """Configurations that together exercise the mixer: what the contract test builds."""
        return (cls(),)
