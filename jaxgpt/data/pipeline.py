"""Batches for training and validation: shuffled anew each epoch, resumed exactly where they stopped.

A batch is a dict of numpy arrays, with B rows of T tokens: `inputs`, `targets` and `segment` int32 [B, T], `weights`
float32 [B, T]. `segment` numbers the documents of a row (0 is padding); the loss is the weighted mean over targets.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgpt.data.packing import Batch, Chained, make_rows
from jaxgpt.data.tokens import TokenSplit
from jaxgpt.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import grain

_PREFETCHED = 16  # batches
_ENDLESS = 2**48  # rows: a million a second for nine years
_NUMBERED = 8  # batches that validate what has no end


def batches(
    split: TokenSplit,
    *,
    batch_size: int,
    sequence_length: int,
    seed: int,
    packing: str = "windows",
    epochs: int | None = None,
    weights: Mapping[str, float] | None = None,
    only: np.ndarray | None = None,
) -> grain.DatasetIterator:
    """Batches in an order drawn anew from `seed` in every epoch; endless where `epochs` is None.

    With `only`, row numbers within a batch, these rows of every batch and no others are cut from the file.

    With `weights` of the split's groups every stretch of rows has them in this proportion, each group with epochs of
    its own.

    The iterator has `get_state()` and `set_state(state)`; a state is small, JSON can hold it, and an iterator set to
    it goes on with the very same batches. A state counts batches: keep `pipeline_identity` beside it. Rows that do
    not fill a last batch join the next epoch, and are dropped after the last.

    Raises DataError where the split does not fill one batch.
    """
    import grain  # here, for it imports jax, which takes a second

    parts = [(split, f"batches {seed}")]
    if weights:
        parts = [(split.group(name), f"batches {seed} of {name}") for name in weights]
    every = [make_rows(part, sequence_length, packing) for part, _ in parts]
    least = 1 if weights else batch_size
    for rows, (part, _) in zip(every, parts, strict=True):
        _require_rows(len(rows), least, part, sequence_length, packing)
    ends = np.cumsum([0, *map(len, every)]).tolist()
    # Grain shuffles epoch e with seed + e: seeds one apart would share their epochs, were they not spread first.
    orders = [
        grain.MapDataset.range(first, end).shuffle(seed=zlib.crc32(words.encode())).repeat(epochs)
        for (first, end), (_, words) in zip(itertools.pairwise(ends), parts, strict=True)
    ]
    order = grain.MapDataset.mix(orders, weights=[*weights.values()]) if weights else orders[0]
    rows = Chained(every) if weights else every[0]
    dataset = order.batch(batch_size, drop_remainder=True)
    # Numbers are shuffled and batched, then a whole batch is cut from the file at once. One thread is the fastest, for
    # there is nothing to wait for.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED)
    return iter(dataset.map(_some(rows, only)).to_iter_dataset(options))


def endless(
    rows: Callable[[np.ndarray], Batch], batch_size: int, only: np.ndarray | None = None
) -> grain.DatasetIterator:
    """Batches of rows 0, 1, 2, ... without end, each a function of its number; resumed as those of `batches` are, and
    with `only` cut down as they are."""
    import grain

    numbers = grain.MapDataset.range(_ENDLESS).batch(batch_size, drop_remainder=True)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED)
    return iter(numbers.map(_some(rows, only)).to_iter_dataset(options))


def _some(rows: Callable[[np.ndarray], Batch], only: np.ndarray | None) -> Callable[[np.ndarray], Batch]:
    return rows if only is None else lambda numbers_B: rows(numbers_B[only])


def numbered(rows: Callable[[np.ndarray], Batch], batch_size: int, count: int | None) -> Iterator[Batch]:
    """The first `count` batches of the same (a few where None), for validation."""
    for number in range(count or _NUMBERED):
        yield rows(np.arange(number * batch_size, (number + 1) * batch_size))


def generator(part: str, *numbers: int) -> np.random.Generator:
    """What an example is drawn from that follows from its part (train, validation, evaluation) and numbers alone."""
    return np.random.default_rng([zlib.crc32(part.encode()), *numbers])


def validation_batches(
    split: TokenSplit,
    batch_size: int,
    sequence_length: int,
    max_batches: int | None = None,
    packing: str = "windows",
) -> Iterator[Batch]:
    """The same batches at every call: all rows in order, or what `max_batches` hold, spread evenly over the split.

    The last batch is filled with rows of padding (segment and weights 0), so that all have the same shape. Raises
    DataError where the split does not fill one row.
    """
    rows = make_rows(split, sequence_length, packing)
    _require_rows(len(rows), 1, split, sequence_length, packing)
    count = len(rows) if max_batches is None else min(len(rows), max_batches * batch_size)
    chosen = np.arange(count) * len(rows) // max(count, 1)
    return (_padded(rows(chosen[at : at + batch_size]), batch_size) for at in range(0, count, batch_size))


def _padded(batch: Batch, batch_size: int) -> Batch:
    missing = batch_size - len(batch["inputs"])
    if not missing:
        return batch
    return {name: np.pad(array, ((0, missing), (0, 0))) for name, array in batch.items()}


def _require_rows(rows: int, batch_size: int, split: TokenSplit, sequence_length: int, packing: str) -> None:
    if rows >= batch_size:
        return
    if packing == "windows":
        what = f"{split.num_tokens} tokens"
        needed = f"{batch_size * sequence_length + 1}"
    else:
        what = f"{rows} rows of documents"
        needed = f"{batch_size}"
    raise DataError(
        f"{split.name} has {what}, needs {needed} for a batch of {batch_size} sequences of {sequence_length} tokens; "
        "use more text, a smaller batch size or a smaller data.sequence_length"
    )


def pipeline_identity(
    dataset_fingerprint: str, batch_size: int, sequence_length: int, seed: int, packing: str
) -> dict[str, Any]:
    """What an iterator's state means nothing without; a checkpoint keeps it beside the state, as JSON."""
    return {
        "dataset_fingerprint": dataset_fingerprint,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "seed": seed,
        "packing": packing,
    }


def require_same_pipeline(saved: Mapping[str, Any], current: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError where the state kept in `where` counts other batches than this run's."""
    different = [name for name in {**saved, **current} if saved.get(name) != current.get(name)]
    if different:
        changes = ", ".join(f"{name} {saved.get(name)!r}, now {current.get(name)!r}" for name in different)
        raise CheckpointError(
            f"{where} cannot continue with other data ({changes}): its place is counted in batches; "
            "restore these settings or start a new run"
        )
