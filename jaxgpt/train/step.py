"""The train step: one pure function of state and batch, and the state it moves.

A batch is a mapping of arrays [B, T]: `inputs` and `targets` (tokens), `segment` (document within the row, 0 for
padding) and `weights` (float32, 0 where a target does not count).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxgpt.models.base import ModelConfig, summary
from jaxgpt.nn.params import named
from jaxgpt.nn.position.base import Positions
from jaxgpt.ops.cross_entropy import fused_by_device
from jaxgpt.ops.layout import constrain, flatten_tokens
from jaxgpt.train.average import moving_average
from jaxgpt.train.norms import norms_by_layer

Batch = Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training changes."""

    step: Array  # int32 scalar: steps done
    model: Any
    optimizer: Any  # optax state
    average: Any = None  # a moving average of the model


def init_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, seed: int, averages: bool = False
) -> TrainState:
    """The state before the first step; the same for the same seed, whatever a variant adds to the model."""
    return state_of(init_model(config, seed), optimizer, averages)


def init_model(config: ModelConfig, seed: int) -> Any:
    """The model before the first step."""
    return config.make(named(jax.random.key(seed), "init"))


def state_of(model: Any, optimizer: optax.GradientTransformation, averages: bool = False) -> TrainState:
    """The state before the first step of a model's training."""
    return TrainState(jnp.int32(0), model, optimizer.init(model), jax.tree.map(jnp.copy, model) if averages else None)


def loss_sum(model: Any, batch: Batch, packed: bool, key: Array | None = None) -> Array:
    """Sum over tokens of weight times negative log-likelihood, in nats. `packed`: rows hold several documents, kept
    apart by `segment`; without it a row is one document, and one row of positions serves all.
    """
    return _loss_and_statistics(model, batch, packed, key)[0]


def loss_sum_in_parts(model: Any, batch: Batch, parts: int) -> Array:
    """`loss_sum` of rows that are a document each, so many parts of a batch one after the other: it needs no more
    memory than a train step with that `accumulation`."""
    if parts == 1:
        return loss_sum(model, batch, packed=False)
    return jax.lax.map(lambda rows: loss_sum(model, rows, packed=False), _cut(batch, parts)).sum()


def _cut(batch: Batch, parts: int) -> dict[str, Array]:
    """A batch [B, ...] in parts [parts, B / parts, ...], the rows of each on all devices that have rows."""
    return {name: constrain(x.reshape(parts, -1, *x.shape[1:]), None, "row", "time") for name, x in batch.items()}


def _loss_and_statistics(model: Any, batch: Batch, packed: bool, key: Array | None) -> tuple[Array, dict[str, Array]]:
    positions = Positions.packed(batch["segment"]) if packed else None
    x_BTD, _, aux = model.hidden(batch["inputs"], positions, key=key)
    x, targets, weights = (flatten_tokens(part) for part in (x_BTD, batch["targets"], batch["weights"]))
    return fused_by_device(x, model.head(), targets, weights), aux


def objective(model: Any, batch: Batch, packed: bool, key: Array) -> tuple[Array, tuple[Array, dict[str, Array]]]:
    """What training makes small: `loss_sum`, and the layers' own losses (`loss/...`) times the sum of the weights;
    beside it `loss_sum` alone, and statistics of routers times the same sum, so that parts of a batch can be added.
    """
    total, aux = _loss_and_statistics(model, batch, packed, key)
    weight = jnp.sum(batch["weights"])
    own = sum((value.sum() for name, value in aux.items() if name.startswith("loss/")), start=jnp.float32(0))
    kept = {name: weight * value for name, value in aux.items() if name.startswith("router_")}
    return total + weight * own, (total, kept)


def make_train_step(
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    packed: bool,
    accumulation: int = 1,
    ema: float | None = None,
    axis: str | None = None,
    by_layer: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """`train_step(state, batch) -> (state, metrics)`; metrics are the mean loss without the layers' own, the norm of
    the gradient, and a summary of routers; `by_layer` adds `layers`: {"gradient_norm", "parameter_norm", "update_norm":
    {path: [L] or []}}, see `norms_by_layer`.

    With `axis` the function is one of several along an axis of that name (`jax.pmap`), each with rows of its own: what
    it sums, it sums along the axis too, and randomness is drawn for each.

    With `accumulation` > 1 the batch is cut into that many parts, whose gradients are summed before they are scaled:
    the step equals the one of the whole batch, whatever the weights of the parts; but for what experts do with a batch
    (their own losses, capacity, choice by experts), which is done part by part. So it is with `axis`.
    """

    def gradients_of(model: Any, batch: Batch, key: Array) -> Any:
        (_, sums), gradients = jax.value_and_grad(objective, has_aux=True)(model, batch, packed, key)
        return sums, gradients

    def accumulated(model: Any, batch: Batch, key: Array) -> Any:
        parts = _cut(batch, accumulation)

        def add(total, part):
            number, rows = part
            return jax.tree.map(jnp.add, total, gradients_of(model, rows, jax.random.fold_in(key, number))), None

        first = jax.tree.map(lambda x: x[0], parts)
        zero = jax.tree.map(
            lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(gradients_of, model, first, key)
        )
        return jax.lax.scan(add, zero, (jnp.arange(accumulation), parts))[0]

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(named(jax.random.key(seed), "train"), state.step)
        key = key if axis is None else jax.random.fold_in(key, jax.lax.axis_index(axis))
        found = *(gradients_of if accumulation == 1 else accumulated)(state.model, batch, key), batch["weights"].sum()
        sums, gradients, weight = found if axis is None else jax.lax.psum(found, axis)
        scale = 1.0 / jnp.maximum(weight, 1.0)
        gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.model)
        total, aux = jax.tree.map(lambda value: value * scale, sums)
        model: Any = optax.apply_updates(state.model, updates)
        model = model.after_step(aux)
        average = None if ema is None else moving_average(ema, state.average, model, state.step)
        metrics = {"loss": total, "gradient_norm": optax.tree.norm(gradients), **summary(aux)}
        if by_layer:
            trees = {"gradient_norm": gradients, "parameter_norm": state.model, "update_norm": updates}
            metrics["layers"] = {name: norms_by_layer(tree) for name, tree in trees.items()}
        return TrainState(state.step + 1, model, optimizer_state, average), metrics

    return train_step
