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

from jaxgpt.models.base import ModelConfig
from jaxgpt.nn.params import named
from jaxgpt.nn.position.base import Positions
from jaxgpt.ops.cross_entropy import fused

Batch = Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training changes."""

    step: Array  # int32 scalar: steps done
    model: Any
    optimizer: Any  # optax state


def init_state(config: ModelConfig, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step; the same for the same seed, whatever a variant adds to the model."""
    model = config.make(named(jax.random.key(seed), "init"))
    return TrainState(jnp.int32(0), model, optimizer.init(model))


def loss_sum(model: Any, batch: Batch, packed: bool, key: Array | None = None) -> Array:
    """Sum over tokens of weight times negative log-likelihood, in nats. `packed`: rows hold several documents, kept
    apart by `segment`; without it a row is one document, and one row of positions serves all.
    """
    positions = Positions.packed(batch["segment"]) if packed else None
    x_BTD, _, _ = model.hidden(batch["inputs"], positions, key=key)
    flat = x_BTD.reshape(-1, x_BTD.shape[-1])
    return fused(flat, model.head(), batch["targets"].reshape(-1), batch["weights"].reshape(-1))


def make_train_step(
    optimizer: optax.GradientTransformation, *, seed: int, packed: bool, accumulation: int = 1
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """`train_step(state, batch) -> (state, metrics)`; metrics are the mean loss and the norm of its gradient.

    With `accumulation` > 1 the batch is cut into that many parts, whose gradients are summed before they are scaled:
    the step equals the one of the whole batch, whatever the weights of the parts.
    """

    def gradients_of(model: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        return jax.value_and_grad(loss_sum)(model, batch, packed, key)

    def accumulated(model: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        parts = jax.tree.map(lambda x: x.reshape(accumulation, -1, *x.shape[1:]), dict(batch))

        def add(total, part):
            number, rows = part
            return jax.tree.map(jnp.add, total, gradients_of(model, rows, jax.random.fold_in(key, number))), None

        zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, model))
        return jax.lax.scan(add, zero, (jnp.arange(accumulation), parts))[0]

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(named(jax.random.key(seed), "train"), state.step)
        total, gradients = (gradients_of if accumulation == 1 else accumulated)(state.model, batch, key)
        scale = 1.0 / jnp.maximum(jnp.sum(batch["weights"]), 1.0)
        gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.model)
        model = optax.apply_updates(state.model, updates)
        metrics = {"loss": total * scale, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, model, optimizer_state), metrics

    return train_step
