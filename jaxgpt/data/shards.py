"""Files of tokens, read in place as if they were one array.

Two formats: `.npy`, a one-dimensional array of integers; and `.bin`, raw little-endian numbers, with or without the
header of 256 int32 that llm.c writes (https://github.com/karpathy/llm.c).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgpt.errors import DataError

SUFFIXES = (".npy", ".bin")
_HEADER = 256  # int32
_MAGIC = {20240520: "<u2", 20240801: "<u4"}  # GPT-2's and Llama 3's


def open_shard(path: Path, dtype: str) -> np.ndarray:
    """The tokens of a file, memory-mapped. dtype: of a `.bin` without a header. Raises DataError."""
    try:
        if path.suffix == ".npy":
            tokens = np.load(path, mmap_mode="r", allow_pickle=False)
            if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
                raise DataError(f"{path}: holds {tokens.dtype}{list(tokens.shape)}, not a list of tokens")
            return tokens
        return _raw(path, dtype)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as tokens ({error})") from None


def _raw(path: Path, dtype: str) -> np.ndarray:
    header = np.fromfile(path, "<i4", _HEADER)
    known = _MAGIC.get(int(header[0])) if len(header) == _HEADER else None
    kind, offset = np.dtype(known or f"<{np.dtype(dtype).str[1:]}"), 4 * _HEADER if known else 0
    size = path.stat().st_size - offset
    if size < kind.itemsize or size % kind.itemsize:
        raise DataError(f"{path}: {size} bytes are no {kind.name} tokens; set data.dtype")
    tokens = np.memmap(path, kind, mode="r", offset=offset)
    if known and len(tokens) != header[2]:
        raise DataError(f"{path}: its header says {header[2]} tokens, and it holds {len(tokens)}: it was cut short")
    return tokens


class Shards:
    """Arrays one behind the other: has a length and can be indexed by slices and by arrays of numbers, as one array."""

    def __init__(self, arrays: Sequence[np.ndarray], first: int = 0, length: int | None = None):
        """first, length: the part of them that is meant."""
        self._arrays = [np.asarray(array) for array in arrays]  # the plain array over a mapped file indexes faster
        self._ends = np.cumsum([0, *map(len, arrays)]).tolist()
        self._first = first
        self._length = self._ends[-1] - first if length is None else length
        self.dtype = np.result_type(*{array.dtype for array in arrays})

    def __len__(self) -> int:
        return self._length

    @property
    def shape(self) -> tuple[int]:
        return (self._length,)

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            return self._stretch(start + self._first, max(stop, start) + self._first)[::step]
        index = np.asarray(index)
        if index.size and not -self._length <= index.min() <= index.max() < self._length:
            raise IndexError(f"indices {index.min()} to {index.max()} are outside {self._length} tokens")
        flat = np.where(index < 0, index + self._length, index).reshape(-1) + self._first
        found = np.empty(flat.shape, self.dtype)
        shard = np.searchsorted(self._ends, flat, side="right") - 1
        for number in np.unique(shard):
            here = shard == number
            found[here] = self._arrays[number][flat[here] - self._ends[number]]
        return found.reshape(index.shape)

    def _stretch(self, start: int, stop: int) -> np.ndarray:
        pieces = []
        at = bisect.bisect_right(self._ends, start) - 1
        while start < stop and at < len(self._arrays):
            end = min(stop, self._ends[at + 1])
            pieces.append(self._arrays[at][start - self._ends[at] : end - self._ends[at]])
            start, at = end, at + 1
        return np.concatenate(pieces).astype(self.dtype) if pieces else np.empty(0, self.dtype)

    def part(self, start: int, stop: int) -> Shards:
        """Those from `start` to `stop`, in place."""
        return Shards(self._arrays, self._first + start, stop - start)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype)


Tokens = np.ndarray | Shards
"""What can be indexed as an array of tokens."""
