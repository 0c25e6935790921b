"""The functions that a run's configuration describes, before they are compiled for what it runs on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import optax

from jaxgpt.models.base import ModelConfig
from jaxgpt.train.groups import make_optimizer
from jaxgpt.train.norms import global_norm
from jaxgpt.train.run import RunConfig, with_sizes
from jaxgpt.train.step import Batch, TrainState, init_state, make_train_step, state_of


@dataclasses.dataclass(frozen=True)
class Functions:
    """Of one run: how it begins and what a step does."""

    model: ModelConfig  # its sizes known
    schedule: optax.Schedule
    init: Callable[[], TrainState]  # the state before the first step
    begin: Callable[[Any], TrainState]  # the same, of a model whose weights are given
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]
    watch: Callable[[TrainState, Batch], dict[str, Any]]  # what else a line of records says of the step to come


def functions_of(config: RunConfig, vocab_size: int, *, packed: bool, axis: str | None = None) -> Functions:
    """The functions of a run on data with such a vocabulary. `packed` and `axis` as in `make_train_step`."""
    train = config.train
    schedule = train.schedule.make(train.learning_rate, train.steps)
    model = with_sizes(config.model, vocab_size, config.data.sequence_length)
    optimizer = make_optimizer(train.optimizer, schedule, train.gradient_clip, train.groups, model.growth())
    averages = train.ema is not None
    make = functools.partial(
        make_train_step,
        optimizer,
        seed=config.seed,
        packed=packed,
        accumulation=train.accumulation,
        ema=train.ema,
        axis=axis,
    )
    closer = make(by_layer=True)

    def watch(state: TrainState, batch: Batch) -> dict[str, Any]:
        # A program of its own: in that of the step, other outputs mean other roundings, and so other weights.
        layers = {"layers": closer(state, batch)[1]["layers"]} if train.layer_statistics else {}
        return {"parameter_norm": global_norm(state.model), **layers}

    return Functions(
        model,
        schedule,
        init=lambda: init_state(model, optimizer, config.seed, averages),
        begin=lambda given: state_of(given, optimizer, averages),
        step=make(),
        watch=watch,
    )
