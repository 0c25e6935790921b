"""Tokens that are only numbers: of a tokenizer that is not at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxgpt.config import content_hash
from jaxgpt.data.tokenizers.base import Tokenizer, TokenizerConfig
from jaxgpt.errors import DataError
from jaxgpt.registry import register


@register("numbers")
@dataclasses.dataclass(frozen=True)
class NumbersConfig(TokenizerConfig):
    """Tokens without their texts, for files that another tokenizer made; written as numbers with spaces between them.

    vocab_size: how many there are. start: the one that begins a document.
    """

    any_text: ClassVar[bool] = False

    vocab_size: int
    start: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.vocab_size:
            raise ValueError(f"start: {self.start} is none of the {self.vocab_size} tokens")

    def train(self, texts: Iterable[str]) -> Tokenizer:
        return NumberTokenizer(self.vocab_size, self.start)

    def known_vocab_size(self) -> int | None:
        return self.vocab_size

    @classmethod
    def restore(cls, pieces: Sequence[str], directory: Path) -> Tokenizer:
        size, start = map(int, pieces)
        return NumberTokenizer(size, start)


class NumberTokenizer(Tokenizer):
    """They are no text, so all have a length of 0 bytes."""

    kind = "numbers"

    def __init__(self, vocab_size: int, start: int = -1):
        """start: as in `NumbersConfig`; -1: no token begins a document."""
        super().__init__((str(vocab_size), str(start)))
        self._size, self._start = vocab_size, start
        self.byte_lengths = np.zeros(vocab_size, np.int64)
        self.fingerprint = content_hash({"kind": self.kind, "size": vocab_size, "start": start}, 16)

    @property
    def vocab_size(self) -> int:
        return self._size

    @property
    def separator(self) -> int:
        return self._start

    def encode(self, text: str) -> np.ndarray:
        """int32 [tokens] of numbers with spaces between them. Raises DataError for what is none."""
        words = text.split()
        wrong = next((word for word in words if not word.isdecimal() or int(word) >= self._size), None)
        if wrong is not None:
            raise DataError(
                f"{wrong!r} is no token: there is no tokenizer for texts here, write numbers below {self._size} with "
                "spaces between them"
            )
        return np.array([int(word) for word in words], np.int32)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        numbers = [int(number) for number in ids]
        wrong = next((number for number in numbers if not 0 <= number < self._size), None)
        if wrong is not None:
            raise ValueError(f"token {wrong} is outside the vocabulary of {self._size}")
        return " ".join(str(number) for number in numbers if number != self._start)
