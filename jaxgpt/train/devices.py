"""On what a run computes, and how its functions are compiled for that: one device, a mesh of them, or copies side by
side. The functions are the same; only where states and batches lie differs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from jaxgpt.data.packing import Batch
from jaxgpt.errors import ConfigError
from jaxgpt.parallel.mesh import Layout
from jaxgpt.train.run import TrainConfig

F = TypeVar("F", bound=Callable[..., Any])
COPIES = "copies"  # the name of the axis along which `pmap` sums


class Devices:
    """JAX's first device; kinds of several override what differs. A state is kept as `step` wants it; `whole` and
    `spread` turn it into what checkpoints hold, and back."""

    axis: str | None = None  # along which a train step must sum by itself
    count: int = 1

    @property
    def rows(self) -> np.ndarray | None:
        """The rows of a batch that this process loads, ascending; None: all."""
        return None

    def begin(self, make: Callable[..., Any], *given: Any) -> Any:
        """`make(*given)`, a new state, made where it lies: no device ever holds more than its part."""
        return jax.jit(make)(*given)

    def places(self, like: Any) -> Any:
        """Where the leaves of an abstract state are restored to; None: on one device."""
        return None

    def step(self, function: Callable[..., Any], like: Any) -> Callable[..., Any]:
        """A train step, compiled; `like` is an abstract state. Its batches went through `put`."""
        return jax.jit(function, donate_argnums=0)

    def watch(self, function: Callable[..., Any], like: Any) -> Callable[..., Any]:
        """A function of what a train step is given, which stays; compiled. Its results are the same on all devices."""
        return jax.jit(function)

    def function(self, function: F) -> F:
        """A function of whole states, and of batches that went through `put`, compiled."""
        return jax.jit(function)  # type: ignore[return-value]

    def put(self, batch: Batch) -> Any:
        """A batch, of which this process has its `rows`, on the devices."""
        return batch

    def whole(self, state: Any) -> Any:
        return state

    def spread(self, state: Any) -> Any:
        return state


class OnMesh(Devices):
    """All devices of all processes in a grid; XLA divides the work (`jit` with `NamedSharding`)."""

    def __init__(self, layout: Layout, batch_size: int):
        self.layout, self._batch_size = layout, batch_size
        self.count = layout.mesh.size

    @functools.cached_property
    def rows(self) -> np.ndarray:  # type: ignore[override]
        return self.layout.local_rows(self._batch_size)

    def begin(self, make: Callable[..., Any], *given: Any) -> Any:
        if jax.process_count() > 1:  # what one process holds is no argument for all; numbers that all have are
            given = jax.tree.map(np.asarray, given)
        places = self.layout.of(jax.eval_shape(make, *given))
        return jax.jit(make, out_shardings=places)(*given)

    def places(self, like: Any) -> Any:
        return self.layout.of(like)

    def step(self, function: Callable[..., Any], like: Any) -> Callable[..., Any]:
        state = self.layout.of(like)
        within = self.layout.within(function)
        shardings = {"in_shardings": (state, self.layout.batch), "out_shardings": (state, None)}
        return jax.jit(within, donate_argnums=0, **shardings)

    def watch(self, function: Callable[..., Any], like: Any) -> Callable[..., Any]:
        return jax.jit(self.layout.within(function), in_shardings=(self.layout.of(like), self.layout.batch))

    def function(self, function: F) -> F:
        return jax.jit(self.layout.within(function))  # type: ignore[return-value]

    def put(self, batch: Batch) -> Any:
        return self.layout.put(batch, self._batch_size)


class Copies(Devices):
    """The whole state on every device, each with its own rows of a batch (`pmap`)."""

    axis = COPIES

    def __init__(self, rows_at_a_time: int) -> None:
        self.count = jax.local_device_count()
        if jax.process_count() > 1:
            raise ConfigError("train.compile: pmap is for one process; use jit and train.mesh with several")
        if rows_at_a_time % self.count:
            raise ConfigError(
                f"train.compile: pmap divides rows among {self.count} devices, and there are {rows_at_a_time} at a "
                "time (batch_size / accumulation)"
            )

    def begin(self, make: Callable[..., Any], *given: Any) -> Any:
        return self.spread(super().begin(make, *given))

    def step(self, function: Callable[..., Any], like: Any) -> Callable[..., Any]:
        return self._with_parts(jax.pmap(function, axis_name=COPIES, donate_argnums=0, out_axes=(0, None)))

    def watch(self, function: Callable[..., Any], like: Any) -> Callable[..., Any]:
        return self._with_parts(jax.pmap(function, axis_name=COPIES, out_axes=None))

    def _with_parts(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        def call(state: Any, batch: Batch) -> Any:
            return compiled(
                state, {name: rows.reshape(self.count, -1, *rows.shape[1:]) for name, rows in batch.items()}
            )

        return call

    def whole(self, state: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], state)

    def spread(self, state: Any) -> Any:
        copy = jax.pmap(lambda number, state: state, in_axes=(0, None))
        return copy(np.arange(self.count), state)


def devices_of(config: TrainConfig) -> Devices:
    """What a configuration asks for. Raises ConfigError where it is not there, or does not fit a batch."""
    if config.compile == "pmap":
        return Copies(config.batch_size // config.accumulation)
    if config.mesh is not None:
        return OnMesh(config.mesh.make(jax.devices()), config.batch_size)
    if jax.process_count() > 1:
        raise ConfigError("train.mesh: several processes need one; say how it is divided, e.g. {data: 8}")
    return Devices()
