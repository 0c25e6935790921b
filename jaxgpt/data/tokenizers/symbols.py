"""Symbols as tokens: the vocabulary of a synthetic task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxgpt.data.tokenizers.base import Tokenizer, TokenizerConfig
from jaxgpt.errors import DataError
from jaxgpt.registry import register


@register("symbols")
@dataclasses.dataclass(frozen=True)
class SymbolsConfig(TokenizerConfig):
    """A given list of symbols, written with spaces between them. No bytes: other text is refused."""

    any_text: ClassVar[bool] = False

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.symbols)) < len(self.symbols) or any(not one or one.split() != [one] for one in self.symbols):
            raise ValueError("symbols: must all differ, and none may be empty or hold a space")

    def train(self, texts: Iterable[str]) -> Tokenizer:
        return SymbolTokenizer(self.symbols)

    def known_vocab_size(self) -> int | None:
        return 1 + len(self.symbols)

    @classmethod
    def restore(cls, pieces: Sequence[str], directory: Path) -> Tokenizer:
        return SymbolTokenizer(pieces)


class SymbolTokenizer(Tokenizer):
    """Token 0 is the separator, from 1 on come the symbols. They are no text, so all have a length of 0 bytes."""

    kind = "symbols"

    def __init__(self, pieces: Sequence[str]):
        super().__init__(pieces)
        self._ids = {piece: number for number, piece in enumerate(self.pieces, start=1)}
        self.byte_lengths = np.zeros(self.vocab_size, np.int64)

    @property
    def vocab_size(self) -> int:
        return 1 + len(self.pieces)

    def encode(self, text: str) -> np.ndarray:
        """int32 [tokens] of symbols with spaces between them. Raises DataError for what is none."""
        words = text.split()
        unknown = next((word for word in words if word not in self._ids), None)
        if unknown is not None:
            raise DataError(f"{unknown!r} is none of the {len(self.pieces)} symbols of this tokenizer")
        return np.array([self._ids[word] for word in words], np.int32)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        numbers = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64).tolist()
        wrong = next((number for number in numbers if not 0 <= number < self.vocab_size), None)
        if wrong is not None:
            raise ValueError(f"token {wrong} is outside the vocabulary of {self.vocab_size}")
        return " ".join(self.pieces[number - 1] for number in numbers if number)
