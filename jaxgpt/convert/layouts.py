"""How tensors of others lie beside parameters of ours: pairs of functions that undo each other.

Ours are `[in..., out...]` with heads as a dimension of their own; a `Linear` of PyTorch is `[out, in]`, heads in one.
Shapes: D model width, N heads, K key-value heads, H head width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

Shape = tuple[int, ...]


class Layout(Protocol):
    """One or several tensors of theirs and as many or more or fewer of ours."""

    def shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        """The shapes of theirs, given those of ours."""
        ...

    def read(self, theirs: Sequence[np.ndarray], ours: Sequence[Shape]) -> list[np.ndarray]:
        """Ours, of the shapes given."""
        ...

    def write(self, ours: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Theirs."""
        ...


class Same:
    """The same numbers in the same shape: gains, embeddings."""

    def shapes(self, ours):
        return list(ours)

    def read(self, theirs, ours):
        return list(theirs)

    def write(self, ours):
        return list(ours)


class Flat:
    """A vector of all heads: biases."""

    def shapes(self, ours):
        return [(math.prod(shape),) for shape in ours]

    def read(self, theirs, ours):
        return [array.reshape(shape) for array, shape in zip(theirs, ours, strict=True)]

    def write(self, ours):
        return [array.reshape(-1) for array in ours]


@dataclasses.dataclass(frozen=True)
class Linear:
    """A matrix, `[out, in]`, or `[in, out]` where it is not `transposed` (Conv1D).

    inputs: how many dimensions of ours are its input: 2 for the map from heads back to the width.
    """

    inputs: int = 1
    transposed: bool = True

    def shapes(self, ours):
        return [self._matrix(shape)[:: -1 if self.transposed else 1] for shape in ours]

    def read(self, theirs, ours):
        return [
            (array.T if self.transposed else array).reshape(shape) for array, shape in zip(theirs, ours, strict=True)
        ]

    def write(self, ours):
        matrices = [array.reshape(self._matrix(array.shape)) for array in ours]
        return [matrix.T if self.transposed else matrix for matrix in matrices]

    def _matrix(self, shape: Shape) -> Shape:
        return math.prod(shape[: self.inputs]), math.prod(shape[self.inputs :])


@dataclasses.dataclass(frozen=True)
class Joined:
    """Several of ours, one behind the other along the outputs of one of theirs: [q | k | v], [gate | up].

    part: how each of them would lie alone.
    axis: of theirs, along which they are joined.
    """

    part: Layout
    axis: int = 0

    def shapes(self, ours):
        parts = self.part.shapes(ours)
        joined = list(parts[0])
        joined[self.axis] = sum(shape[self.axis] for shape in parts)
        return [tuple(joined)]

    def read(self, theirs, ours):
        sizes = [shape[self.axis] for shape in self.part.shapes(ours)]
        parts = np.split(theirs[0], np.cumsum(sizes)[:-1], axis=self.axis)
        return self.part.read(parts, ours)

    def write(self, ours):
        return [np.concatenate(self.part.write(ours), axis=self.axis)]


@dataclasses.dataclass(frozen=True)
class HeadsJoined:
    """Queries, keys and values in one tensor, side by side for each key-value head: [K, (N/K queries, key, value), H].

    With as many key-value heads as heads that is [N, 3, H] (GPT-NeoX, BLOOM, Falcon with many heads), else Falcon's
    groups. Matrices `[out, in]`, or vectors (`vector`).
    """

    vector: bool = False

    def shapes(self, ours):
        heads, kv_heads, head_dim, width = self._sizes(ours)
        rows = (heads + 2 * kv_heads) * head_dim
        return [(rows,) if self.vector else (rows, width)]

    def read(self, theirs, ours):
        heads, kv_heads, head_dim, _ = self._sizes(ours)
        grouped = theirs[0].reshape(kv_heads, heads // kv_heads + 2, head_dim, -1)  # [K, N/K + 2, H, D or 1]
        found = grouped[:, :-2], grouped[:, -2:-1], grouped[:, -1:]
        rows = (array.reshape(-1, array.shape[-1]) for array in found)  # [heads * H, D or 1]
        return [array.T.reshape(shape) for array, shape in zip(rows, ours, strict=True)]

    def write(self, ours):
        heads, kv_heads, head_dim, width = self._sizes([array.shape for array in ours])
        columns = [array.reshape(1 if self.vector else width, -1).T for array in ours]
        grouped = [array.reshape(kv_heads, -1, head_dim, array.shape[-1]) for array in columns]
        joined = np.concatenate(grouped, axis=1)
        rows = (heads + 2 * kv_heads) * head_dim
        return [joined.reshape(rows) if self.vector else joined.reshape(rows, width)]

    def _sizes(self, ours: Sequence[Shape]) -> tuple[int, int, int, int]:
        """Heads, key-value heads, head width, model width (0 for vectors)."""
        (*width, heads, head_dim), (*_, kv_heads, _) = ours[0], ours[1]
        return heads, kv_heads, head_dim, width[0] if width else 0


class HeadsSplit:
    """Two maps from one input to heads, joined head by head: rows [N, (first, second)] (keys and values of MLA)."""

    def shapes(self, ours):
        (rank, heads, first), (*_, second) = ours
        return [(heads * (first + second), rank)]

    def read(self, theirs, ours):
        (rank, heads, first), (*_, second) = ours
        by_head = theirs[0].reshape(heads, first + second, rank)
        return [np.moveaxis(part, -1, 0) for part in (by_head[:, :first], by_head[:, first:])]

    def write(self, ours):
        joined = np.concatenate([np.moveaxis(part, 0, -1) for part in ours], axis=1)
        return [joined.reshape(-1, joined.shape[-1])]


class Interleaved:
    """Two of ours in turn along the last dimension of one of theirs, which lies as ours do otherwise."""

    def shapes(self, ours):
        (*lead, size), _ = ours
        return [(*lead, 2 * size)]

    def read(self, theirs, ours):
        return [theirs[0][..., ::2], theirs[0][..., 1::2]]

    def write(self, ours):
        return [np.stack(ours, axis=-1).reshape(*ours[0].shape[:-1], -1)]


@dataclasses.dataclass(frozen=True)
class PerItem:
    """One of ours whose first dimension runs over many of theirs: experts, gains of heads.

    part: how each item lies.
    """

    part: Layout

    def shapes(self, ours):
        (count, *shape) = ours[0]
        return self.part.shapes([tuple(shape)]) * count

    def read(self, theirs, ours):
        shape = tuple(ours[0][1:])
        return [np.stack([self.part.read([array], [shape])[0] for array in theirs])]

    def write(self, ours):
        return [self.part.write([item])[0] for item in ours[0]]


SAME, FLAT, LINEAR, OUTPUT = Same(), Flat(), Linear(), Linear(inputs=2)
CONV, CONV_OUTPUT = Linear(transposed=False), Linear(inputs=2, transposed=False)
