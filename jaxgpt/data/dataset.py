"""What data is to training and evaluation: the slot `data`, and the dataset that each of its kinds prepares."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from jaxgpt.data.packing import Batch
from jaxgpt.data.tokenizers.base import Tokenizer
from jaxgpt.errors import ConfigError
from jaxgpt.registry import kind_of, slot

if TYPE_CHECKING:
    import grain


@slot("data", package="jaxgpt.data.sources")
@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a model learns from, and how it is cut into sequences."""

    protocols: ClassVar[tuple[str, ...]] = ()  # kinds of evaluation protocols that measure it, unless others are named
    baseline: ClassVar[bool] = False  # whether n-grams can be counted on it

    @property
    def sequence_length(self) -> int:
        """Tokens of one training sequence."""
        raise TypeError(f"{type(self).__qualname__} must define sequence_length")

    @property
    def reference_length(self) -> int:
        """L, of which the contexts of evaluations are multiples: here the tokens of a training sequence."""
        return self.sequence_length

    def known_vocab_size(self) -> int | None:
        """The size of the vocabulary where it is known before any text is seen, else None."""
        return None

    def for_tuning(self, fraction: float) -> DataConfig:
        """The same data for choosing settings: what evaluations measure is left out, and that share of what remains for
        training is held out in its place. Raises ConfigError where this kind of data cannot be divided so."""
        raise ConfigError(
            f"data.type: {kind_of(self)} has no tuning split; choose settings yourself, --no-tune --no-search"
        )

    def describe(self) -> dict[str, object]:
        """Name -> value of what a report says about the data."""
        raise TypeError(f"{type(self).__qualname__} must define describe()")

    def prepare(self, cache_dir: Path | None = None) -> Dataset:
        """The dataset, from the cache where it was prepared before; the folder is `cache_dir`, else `$JAXGPT_CACHE`,
        else `~/.cache/jaxgpt`. Several processes may prepare the same at once. Raises DataError where it cannot be."""
        raise TypeError(f"{type(self).__qualname__} must define prepare()")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A tokenizer and batches: dicts of numpy arrays [B, T] as `jaxgpt.data.pipeline` describes them."""

    tokenizer: Tokenizer
    fingerprint: str  # equal where every batch is equal
    sequence_length: int  # T
    packing: str  # how rows are filled; "documents": with several, kept apart by `segment`

    @property
    def packed(self) -> bool:
        """Whether training rows hold several documents."""
        return self.packing == "documents"

    def batches(self, batch_size: int, seed: int, rows: np.ndarray | None = None) -> grain.DatasetIterator:
        """Endless batches for training, in an order that `seed` decides.

        rows: which rows of every batch are wanted, where several processes share them; the others are not read.

        The iterator has `get_state()` and `set_state(state)`; a state is small, JSON can hold it, and an iterator set
        to it goes on with the very same batches. Raises DataError where the data do not fill one batch.
        """
        raise TypeError(f"{type(self).__qualname__} must define batches()")

    def validation_batches(self, batch_size: int, max_batches: int | None = None) -> Iterator[Batch]:
        """The same batches at every call, of data that training never sees; a row holds one document."""
        raise TypeError(f"{type(self).__qualname__} must define validation_batches()")
