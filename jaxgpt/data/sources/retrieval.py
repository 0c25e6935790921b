"""Keys hidden in text: what a model must find again, with a corpus for filler."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

import numpy as np

from jaxgpt.config import content_hash
from jaxgpt.data.packing import Batch
from jaxgpt.data.pipeline import endless, generator, numbered
from jaxgpt.data.sources.text import TextDataConfig, TextDataset
from jaxgpt.data.tokens import TokenSplit
from jaxgpt.errors import ConfigError, DataError
from jaxgpt.registry import register

if TYPE_CHECKING:
    import grain

_FORMAT = 1  # of the rows; raise it when the same configuration gives others
_NAMES = ("peace", "trade", "labor", "water", "iron", "gold", "grain", "coal")


@register("retrieval")
@dataclasses.dataclass(frozen=True)
class RetrievalDataConfig(TextDataConfig):
    """Text in which keys are hidden, one of them asked for at the end: `... The key of peace is 4 7 1 2. ... The key of
    peace is 4 7 1 2` (Mohtashami & Jaggi 2023, arXiv:2305.16300; several needles: Hsieh et al. 2024, arXiv:2404.06654).

    Training mixes rows with one to `needles` keys into plain windows of training text; evaluation hides all of them in
    validation text.
    """

    protocols: ClassVar[tuple[str, ...]] = ("retrieval",)
    baseline: ClassVar[bool] = False

    share: float = 0.75  # of the rows that hold keys
    needles: int = 1  # the most keys hidden in a row, of different names
    digits: int = 4  # of a key
    answer_weight: float = 8.0  # of a token of the answer in the loss; other tokens count 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share: must lie above 0 and be at most 1, got {self.share}")
        if not 1 <= self.needles <= len(_NAMES) or self.digits < 1:
            raise ValueError(f"needles: must be from 1 to {len(_NAMES)}, and digits at least 1")
        if self.corpus.weights():
            raise ValueError("corpus: keys are hidden in text drawn by size, and a mixture has weights; use one corpus")
        if self.packing != "windows":
            raise ValueError("packing: keys are hidden in windows; leave it out")

    def prepare(self, cache_dir: Path | None = None) -> RetrievalDataset:
        text = super().prepare(cache_dir)
        fields = {field.name: getattr(text, field.name) for field in dataclasses.fields(text)}
        rows = content_hash({"format": _FORMAT, "text": text.fingerprint, "data": self}, 16)
        return RetrievalDataset(**{**fields, "packing": "retrieval", "fingerprint": rows}, config=self)

    def for_tuning(self, fraction: float) -> NoReturn:
        """Its text could be divided, but trials are scored by the loss of text, which says nothing of keys."""
        raise ConfigError("data.type: retrieval has no tuning split; choose settings yourself, --no-tune --no-search")


@dataclasses.dataclass(frozen=True, eq=False)
class RetrievalDataset(TextDataset):
    """The text of both parts, and rows with keys by number."""

    config: RetrievalDataConfig

    @functools.cached_property
    def most_asked(self) -> int:
        """Tokens that the keys and the question take at the most."""
        lengths = sorted(len(self.tokenizer.encode(_told(name))) for name in _NAMES)
        digit = max(len(self.tokenizer.encode(f" {digit}")) for digit in range(10))
        key, end = self.config.digits * digit, len(self.tokenizer.encode("."))
        return sum(lengths[-self.config.needles :]) + self.config.needles * (key + end) + lengths[-1] + key

    def require_room(self, context: int) -> None:
        """Raise DataError where the longest keys and question leave no filler in rows of `context` tokens."""
        if context <= self.most_asked:
            raise DataError(
                f"a context of {context} tokens has no room for the keys, which may take {self.most_asked} with the "
                "question; use a larger data.sequence_length, fewer data.needles or data.digits"
            )

    def batches(self, batch_size: int, seed: int, rows: np.ndarray | None = None) -> grain.DatasetIterator:
        self.require_room(self.sequence_length)
        return endless(lambda numbers_B: self._mixed(self.train, "train", seed, numbers_B), batch_size, rows)

    def validation_batches(self, batch_size: int, max_batches: int | None = None) -> Iterator[Batch]:
        return numbered(
            lambda numbers_B: self._mixed(self.validation, "validation", 0, numbers_B), batch_size, max_batches
        )

    def examples(self, context: int, depth: float, count: int) -> Batch:
        """`count` rows of `context` tokens in validation text, the needle asked for at `depth` (0: start, 1: end of the
        text before the question); weights are above 0 on the answer alone. Always the same."""
        self.require_room(context)
        rows = []
        for number in range(count):
            rng = generator("evaluation", context, number)
            tokens, asked = self._row(self.validation, rng, context, depth, self.config.needles)
            rows.append((tokens, asked.astype(np.float32)))
        return _batch(rows)

    def _mixed(self, split: TokenSplit, part: str, seed: int, numbers_B: np.ndarray) -> Batch:
        rows = []
        for number in numbers_B:
            rng = generator(part, seed, int(number))
            if rng.random() < self.config.share:
                tokens, asked = self._row(split, rng, self.sequence_length, float(rng.random()), self._some(rng))
                rows.append((tokens, np.where(asked, self.config.answer_weight, 1.0).astype(np.float32)))
            else:
                rows.append((self._filler(split, rng, self.sequence_length + 1), np.ones(self.sequence_length)))
        return _batch(rows)

    def _some(self, rng: np.random.Generator) -> int:
        """How many keys a row for training has: what is learned of few helps with many."""
        return int(rng.integers(1, self.config.needles + 1)) if self.config.needles > 1 else 1

    def _row(
        self, split: TokenSplit, rng: np.random.Generator, width: int, depth: float, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [width + 1], and which targets [width] are the answer."""
        names = [_NAMES[i] for i in rng.permutation(len(_NAMES))[:count]]
        encode = self.tokenizer.encode
        keys = [encode("".join(f" {digit}" for digit in rng.integers(0, 10, self.config.digits))) for _ in names]
        told = [encode(_told(name)) for name in names]
        needles = [np.concatenate([tell, key, encode(".")]) for tell, key in zip(told, keys, strict=True)]
        size = width + 1 - sum(map(len, needles)) - len(told[0]) - len(keys[0])
        filler = self._filler(split, rng, size)
        places = [round(depth * size), *rng.integers(0, size + 1, len(needles) - 1).tolist()]
        pieces, at = [], 0
        for number in np.argsort(places, kind="stable").tolist():
            pieces += [filler[at : places[number]], needles[number]]
            at = places[number]
        asked = np.zeros(width, bool)
        asked[width - len(keys[0]) :] = True
        return np.concatenate([*pieces, filler[at:], told[0], keys[0]]), asked

    def _filler(self, split: TokenSplit, rng: np.random.Generator, size: int) -> np.ndarray:
        if split.num_tokens < size:
            raise DataError(f"{split.name} has {split.num_tokens} tokens, needs {size} for filler; use more text")
        start = int(rng.integers(0, split.num_tokens - size + 1))
        return np.asarray(split.tokens[start : start + size], np.int32)


def _told(name: str) -> str:
    return f" The key of {name} is"


def _batch(rows: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    tokens = np.stack([one for one, _ in rows]).astype(np.int32)
    weights = np.stack([one for _, one in rows]).astype(np.float32)
    segment = np.ones(weights.shape, np.int32)
    return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "segment": segment, "weights": weights}
