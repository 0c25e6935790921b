"""A grid of devices, and where states and batches lie on it, by the table of `ops.layout`.

The program stays that of one device: XLA is told where states and batches lie, divides the work accordingly and adds
the communication (GSPMD, Xu et al. 2021, arXiv:2105.04663). Results differ by the rounding of sums alone; but for
dropout of attention weights where `context` divides time, which is drawn part by part.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxgpt.errors import ConfigError
from jaxgpt.nn.params import path_name
from jaxgpt.ops.layout import PLACES, ROWS

F = TypeVar("F", bound=Callable[..., Any])

SUMMARIES = frozenset(("v_row", "v_col"))
"""What optax calls means over a dimension of a parameter. They are small, and whole on every device."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices there are along each axis of the grid.

    data: copies of the model, each with its own rows of a batch.
    fsdp: rows too, and parameters and optimizer states in parts that are put together where they are needed (Zhao et
        al. 2023, arXiv:2304.11277).
    expert: rows too, and the experts of a mixture. With a `capacity` tokens travel to their experts (Lepikhin et al.
        2020, arXiv:2006.16668); without one XLA decides whether they or the experts do.
    context: time. Every device has its queries and gathers keys and values (Dubey et al. 2024, arXiv:2407.21783,
        section 3.3.2). Latent attention gathers them as heads see them; the position counts of CoPE and the tokens of
        a mixture are gathered too.
    tensor: heads, hidden units and the vocabulary (Shoeybi et al. 2019, arXiv:1909.08053).

    JAX places neighbours along the last axes nearest to each other.
    """

    data: int = 1
    fsdp: int = 1
    expert: int = 1
    context: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}: must be at least 1, got {getattr(self, field.name)}")

    @property
    def shape(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def devices(self) -> int:
        """How many there are in all."""
        return math.prod(self.shape.values())

    @property
    def rows(self) -> int:
        """By what the rows of a batch must be divisible."""
        return math.prod(self.shape[axis] for axis in ROWS)

    def make(self, devices: Sequence[Any]) -> Layout:
        """The layout on these devices. Raises ConfigError where they are not as many as asked for."""
        wanted = self.devices
        if wanted != len(devices):
            sizes = " x ".join(f"{size} {axis}" for axis, size in self.shape.items() if size > 1) or "one device"
            raise ConfigError(
                f"train.mesh: {sizes} is {wanted} device(s), and there are {len(devices)}; make the product fit"
            )
        names, sizes = tuple(self.shape), tuple(self.shape.values())
        auto = (AxisType.Auto,) * len(names)
        return Layout(jax.make_mesh(sizes, names, axis_types=auto, devices=list(devices)))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things lie on a mesh."""

    mesh: jax.sharding.Mesh

    @property
    def batch(self) -> NamedSharding:
        """Of the arrays [B, T] of a batch."""
        return NamedSharding(self.mesh, PartitionSpec(ROWS, PLACES["time"]))

    def local_rows(self, count: int) -> np.ndarray:
        """Which of `count` rows lie, whole or in part, on devices of this process; ascending."""
        shape = count, self.mesh.shape["context"]
        indices = self.batch.addressable_devices_indices_map(shape).values()
        return np.unique(np.concatenate([np.arange(count)[index[0]] for index in indices if index]))

    def put(self, batch: Mapping[str, np.ndarray], count: int) -> dict[str, jax.Array]:
        """A batch of `count` rows on the devices, given the `local_rows` of each process."""
        whole = jax.make_array_from_process_local_data
        return {name: whole(self.batch, rows, (count, rows.shape[1])) for name, rows in batch.items()}

    def within(self, function: F) -> F:
        """`function`, which when it is traced finds itself on this mesh."""

        @functools.wraps(function)
        def placed(*arguments: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return function(*arguments)

        return placed  # type: ignore[return-value]

    def of(self, tree: Any) -> Any:
        """The shardings of a state, real or abstract, as a tree of the same form. Parameters and what an optimizer
        keeps of them lie as their named dimensions say; a dimension that its axis does not divide stays whole."""
        return jax.tree_util.tree_map_with_path(self._one, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))

    def _one(self, path: Any, leaf: Any) -> NamedSharding:
        summary = not SUMMARIES.isdisjoint(path_name(path).split("/"))
        if summary or not isinstance(leaf, nnx.Variable) or not jax.tree.leaves(leaf):
            return NamedSharding(self.mesh, PartitionSpec())
        shape = leaf.get_raw_value().shape
        names = leaf.get_metadata().get("axes", ())
        if len(names) > len(shape):  # where an optimizer keeps nothing it keeps one number
            names = ()
        names = (None,) * (len(shape) - len(names)) + tuple(names)  # layers that are stacked come first
        spec: list[str | None] = []
        for size, name in zip(shape, names, strict=True):
            axis = PLACES.get(name) if name else None
            spec.append(
                axis if isinstance(axis, str) and axis not in spec and size % self.mesh.shape[axis] == 0 else None
            )
        return NamedSharding(self.mesh, PartitionSpec(*spec))
