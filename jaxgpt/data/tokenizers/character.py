"""Characters as tokens."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxgpt.data.tokenizers.base import Tokenizer, TokenizerConfig, most_frequent, spell_bytes
from jaxgpt.registry import register


@register("character")
@dataclasses.dataclass(frozen=True)
class CharacterConfig(TokenizerConfig):
    """Every character of the training text is a token; one never seen is spelt in bytes."""

    max_characters: int = 8192  # keep the most frequent ones

    def __post_init__(self) -> None:
        if self.max_characters < 1:
            raise ValueError(f"max_characters: must be at least 1, got {self.max_characters}")

    def train(self, texts: Iterable[str]) -> Tokenizer:
        counts: collections.Counter[str] = collections.Counter()
        for text in texts:
            counts.update(text)
        return CharacterTokenizer(most_frequent(counts, self.max_characters))

    @classmethod
    def restore(cls, pieces: Sequence[str], directory: Path) -> Tokenizer:
        return CharacterTokenizer(pieces)


class CharacterTokenizer(Tokenizer):
    """One token per known character, bytes for the others."""

    kind = "character"

    def _spell(self, words: list[str]) -> Iterable[Sequence[int]]:
        for word in words:
            tokens: list[int] = []
            for character in word:
                known = self._ids.get(character)
                tokens += [known] if known is not None else spell_bytes(character)
            yield tokens
