"""Examples of a synthetic task, made up while they are learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from jaxgpt.config import content_hash
from jaxgpt.data.dataset import DataConfig, Dataset
from jaxgpt.data.packing import Batch
from jaxgpt.data.pipeline import endless, generator, numbered
from jaxgpt.data.tasks.base import Example, TaskConfig, example_tokens
from jaxgpt.data.tasks.copy import CopyConfig
from jaxgpt.data.tokenizers.symbols import SymbolsConfig
from jaxgpt.registry import kind_of, register

if TYPE_CHECKING:
    import grain

_FORMAT = 1  # of the examples; raise it when the same configuration gives others


@register("task")
@dataclasses.dataclass(frozen=True)
class TaskDataConfig(DataConfig):
    """A synthetic task. Training draws lengths evenly from `min_length` to `max_length`; L is `max_length`.

    There is no end to the examples, and each follows from the seed and its number alone. A row holds one: the
    separator, prompt, answer, padding. Only the answer is in the loss. No symbol ends an answer: how long it is, the
    length says (Newman et al. 2020, arXiv:2010.07174, show what models learn from end symbols).
    """

    protocols: ClassVar[tuple[str, ...]] = ("task",)

    task: TaskConfig = CopyConfig()
    min_length: int = 1
    max_length: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(f"min_length: must be from 1 to max_length {self.max_length}, got {self.min_length}")
        longest = self.task.longest()
        if longest is not None and self.max_length > longest:
            raise ValueError(f"max_length: the task has symbols for lengths up to {longest}, not for {self.max_length}")

    @property
    def sequence_length(self) -> int:
        """Tokens of the longest example that is trained on."""
        return example_tokens(self.task, self.max_length)

    @property
    def reference_length(self) -> int:
        """The greatest length that is trained on, in units of the task."""
        return self.max_length

    def known_vocab_size(self) -> int | None:
        return SymbolsConfig(self.task.symbols()).known_vocab_size()

    def describe(self) -> dict[str, object]:
        return {"task": kind_of(self.task), "lengths trained on": f"{self.min_length} to {self.max_length}"}

    def prepare(self, cache_dir: Path | None = None) -> TaskDataset:
        """The dataset; nothing is kept on disk."""
        return TaskDataset(
            tokenizer=SymbolsConfig(self.task.symbols()).train([]),
            fingerprint=content_hash({"format": _FORMAT, "data": self}, 16),
            sequence_length=self.sequence_length,
            packing="examples",
            config=self,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class TaskDataset(Dataset):
    """Examples by number, for training, validation and every length that is asked for."""

    config: TaskDataConfig

    def batches(self, batch_size: int, seed: int, rows: np.ndarray | None = None) -> grain.DatasetIterator:
        return endless(lambda numbers_B: self._rows("train", seed, numbers_B), batch_size, rows)

    def validation_batches(self, batch_size: int, max_batches: int | None = None) -> Iterator[Batch]:
        """Lengths and seed of training, examples of their own (a short one may be the same by chance)."""
        return numbered(lambda numbers_B: self._rows("validation", 0, numbers_B), batch_size, max_batches)

    def examples(self, length: int, count: int) -> Batch:
        """The first `count` examples of one length, always the same, in rows without padding."""
        numbers = range(count)
        return rows([self._example("evaluation", length, number, length) for number in numbers])

    def _rows(self, part: str, seed: int, numbers_B: np.ndarray) -> Batch:
        return rows([self._example(part, seed, int(number)) for number in numbers_B], self.sequence_length)

    def _example(self, part: str, seed: int, number: int, length: int | None = None) -> Example:
        rng = generator(part, seed, number)
        if length is None:
            length = int(rng.integers(self.config.min_length, self.config.max_length + 1))
        return self.config.task.sample(rng, length)


def rows(examples: Sequence[Example], width: int | None = None) -> Batch:
    """A row of `width` tokens (None: as many as the longest needs) per example; symbol i is token i + 1."""
    width = width or max(sum(map(len, example)) for example in examples)
    tokens = np.zeros((len(examples), width + 1), np.int32)  # the first is the separator
    weights = np.zeros((len(examples), width), np.float32)
    segment = np.zeros((len(examples), width), np.int32)
    for row, example in enumerate(examples):
        at = 0
        for number, part in enumerate(example):
            tokens[row, at + 1 : at + 1 + len(part)] = part
            weights[row, at : at + len(part)] = number % 2
            at += len(part)
        tokens[row, 1 : at + 1] += 1
        segment[row, :at] = 1
    return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "segment": segment, "weights": weights}
