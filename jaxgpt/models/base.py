"""The slot of models, and what every model returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.models.mup import Growth
from jaxgpt.nn.position.base import Positions
from jaxgpt.ops.cross_entropy import Head
from jaxgpt.registry import slot


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """The state of every layer, and how many tokens they hold."""

    layers: tuple[Any, ...]  # every leaf [B, ...]
    at: Array  # int32 scalar: where the next tokens go
    length: int = dataclasses.field(metadata={"static": True})  # tokens there is room for


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Output:
    """What a model returns."""

    logits: Array  # float32 [B, T, V]
    cache: Cache | None
    aux: dict[str, Array]  # statistics, stacked: [layers that report it, ...]


class Model(nnx.Module):
    """A language model: a pure function of its parameters and arguments."""

    config: Any  # of its own class of ModelConfig
    max_length: int | None = None  # the longest context its positional encoding has values for

    def __call__(
        self,
        tokens_BT: Array,
        positions: Positions | None = None,
        cache: Cache | None = None,
        key: Array | None = None,
        logits_from: int | None = None,
        capture: tuple[str, ...] = (),
    ) -> Output:
        raise AssertionError("every model defines __call__")

    def init_cache(self, batch: int, length: int, rings: bool = True) -> Cache:
        """An empty cache for `length` tokens of `batch` sequences."""
        raise AssertionError("every model that decodes defines init_cache")

    def hidden(
        self,
        tokens_BT: Array,
        positions: Positions | None = None,
        cache: Cache | None = None,
        key: Array | None = None,
        capture: tuple[str, ...] = (),
    ) -> tuple[Array, Cache | None, dict[str, Array]]:
        """What the head reads, [B, T, D], with cache and aux: for losses that never hold all logits."""
        raise AssertionError("every model defines hidden")

    def after_step(self, aux: dict[str, Array]) -> Self:
        """The model after a training step, with what its layers change of themselves, given their statistics."""
        return self

    def head(self) -> Head:
        """What turns hidden states into logits."""
        raise AssertionError("every model defines head")


def summary(aux: dict[str, Array]) -> dict[str, Array]:
    """Numbers worth recording of routers' statistics: the largest load over the mean one in the most unequal layer, and
    means of entropy (nats) and of the share dropped."""
    found = {}
    if "router_load" in aux:
        load = aux["router_load"]
        found["router_imbalance"] = (load.max(axis=-1) / jnp.maximum(load.mean(axis=-1), 1e-9)).max()
    for name in ("router_entropy", "router_dropped"):
        if name in aux:
            found[name] = aux[name].mean()
    return found


@slot("model", package="jaxgpt.models")
@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """How layers are stacked into a language model."""

    vocab_size: int | None = None  # None: the tokenizer's
    train_length: int | None = None  # tokens per training sequence; None: data.sequence_length

    def make(self, key: Array) -> Any:
        """Build the model with parameters drawn from `key`. Raises ConfigError where a size is missing."""
        raise TypeError(f"{type(self).__qualname__} must define make()")

    def growth(self) -> Mapping[str, Growth]:
        """The matrices that are not as large as those of the base model that muP goes by; none without one."""
        return {}

    def flops_per_token(self, sequence_length: int) -> int:
        """Model FLOPs to train on one token, forward and backward."""
        raise TypeError(f"{type(self).__qualname__} must define flops_per_token()")

    def with_hidden(self, hidden: int) -> Self:
        """The same with another hidden width of its feed-forward layers."""
        raise TypeError(f"{type(self).__qualname__} must define with_hidden()")


def parameter_count(model: Any) -> int:
    """Number of trained scalars of a model, real or abstract (`jax.eval_shape(config.make, key)`)."""
    leaves = jax.tree.leaves(model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return sum(leaf.size for leaf in leaves if isinstance(leaf, nnx.Param))
