"""How tokens become rows of T inputs and T targets. numpy only; `pipeline` shuffles and batches the rows.

Shapes: B rows asked for, T sequence length, N tokens of the split.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jaxgpt.data.tokens import TokenSplit

Batch = dict[str, np.ndarray]


class Rows(Protocol):
    """Rows that can be asked for by number."""

    def __len__(self) -> int: ...

    def __call__(self, numbers_B: np.ndarray) -> Batch:
        """inputs, targets, segment int32 [B, T] and weights float32 [B, T] of these rows."""
        ...


class Windows:
    """Row i is tokens i*T to (i+1)*T, across the ends of documents; every token is predicted from the one before it."""

    def __init__(self, split: TokenSplit, sequence_length: int):
        self._tokens = split.tokens
        self._reach = np.arange(sequence_length + 1)
        self._length = sequence_length

    def __len__(self) -> int:
        return max(len(self._tokens) - 1, 0) // self._length

    def __call__(self, numbers_B: np.ndarray) -> Batch:
        starts_B = np.asarray(numbers_B, np.int64) * self._length
        window_BS = self._tokens[starts_B[:, None] + self._reach[None, :]].astype(np.int32)
        shape = (len(starts_B), self._length)
        return {
            "inputs": window_BS[:, :-1],
            "targets": window_BS[:, 1:],
            "segment": np.ones(shape, np.int32),
            "weights": np.ones(shape, np.float32),
        }


class Documents:
    """Documents kept apart: each row holds pieces of documents, numbered 1, 2, ... in `segment`, then padding (0).

    A document of n tokens has n - 1 predictions; they are cut into pieces of T and one shorter. Whole pieces fill a
    row, shorter ones are packed into rows best fit decreasing, longest first into the fullest row with room. The plan
    depends on the document lengths alone, so rows are the same in every epoch and process; only their order is
    shuffled. Every input of a document has its target in the same document; weights are 1 there and 0 on padding.
    """

    def __init__(self, split: TokenSplit, sequence_length: int):
        self._tokens = split.tokens
        self._length = sequence_length
        starts, sizes = _pieces(split.offsets, sequence_length)
        order, self._ends = _best_fit(sizes, sequence_length)
        self._starts, self._sizes = starts[order], sizes[order]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __call__(self, numbers_B: np.ndarray) -> Batch:
        numbers_B = np.asarray(numbers_B, np.int64)
        shape = (len(numbers_B), self._length)
        batch: Batch = {name: np.zeros(shape, np.int32) for name in ("inputs", "targets", "segment")}
        for row, number in enumerate(numbers_B):
            column = 0
            for segment, piece in enumerate(range(self._ends[number], self._ends[number + 1]), start=1):
                start, size = self._starts[piece], self._sizes[piece]
                here = slice(column, column + size)
                batch["inputs"][row, here] = self._tokens[start : start + size]
                batch["targets"][row, here] = self._tokens[start + 1 : start + size + 1]
                batch["segment"][row, here] = segment
                column += size
        batch["weights"] = (batch["segment"] > 0).astype(np.float32)
        return batch


class Chained:
    """The rows of several, numbered one after the other."""

    def __init__(self, parts: Sequence[Rows]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __call__(self, numbers_B: np.ndarray) -> Batch:
        numbers_B = np.asarray(numbers_B, np.int64)
        part_B = np.searchsorted(self._starts, numbers_B, side="right") - 1
        batch: Batch = {}
        for part in np.unique(part_B):
            here = part_B == part
            for name, found in self._parts[part](numbers_B[here] - self._starts[part]).items():
                batch.setdefault(name, np.empty((len(numbers_B), *found.shape[1:]), found.dtype))[here] = found
        return batch


def _pieces(offsets: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and number of inputs, int64 [pieces], of every piece of every document."""
    predictions = np.maximum(np.diff(offsets) - 1, 0)
    counts = -(-predictions // sequence_length)
    first = np.cumsum(counts) - counts
    number = np.arange(counts.sum()) - np.repeat(first, counts)  # of the piece in its document
    starts = np.repeat(offsets[:-1], counts) + number * sequence_length
    sizes = np.minimum(np.repeat(predictions, counts) - number * sequence_length, sequence_length)
    return starts, sizes


def _best_fit(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack pieces into rows: (order of the pieces [pieces], ends [rows + 1]), row r holding order[ends[r]:ends[r + 1]].

    Best fit decreasing in O(pieces * log capacity), by keeping a list of rows for each size of gap.
    """
    row_of = np.empty(len(sizes), np.int64)
    rows = 0
    gaps: list[int] = []  # sizes for which there are rows with just that much room, ascending
    open_rows: dict[int, list[int]] = {}
    for piece in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[piece])
        at = bisect.bisect_left(gaps, size)
        if at < len(gaps):
            gap = gaps[at]
            row = open_rows[gap].pop()
            if not open_rows[gap]:
                del gaps[at]
        else:
            gap, row = capacity, rows
            rows += 1
        row_of[piece] = row
        left = gap - size
        if left:
            waiting = open_rows.setdefault(left, [])
            if not waiting:
                bisect.insort(gaps, left)
            waiting.append(row)
    order = np.argsort(row_of, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows))]).astype(np.int64)
    return order, ends


def make_rows(split: TokenSplit, sequence_length: int, packing: str) -> Rows:
    """The rows of a split, for `packing` "windows" or "documents"."""
    return {"windows": Windows, "documents": Documents}[packing](split, sequence_length)
