"""Words as tokens."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxgpt.data.tokenizers.base import Tokenizer, TokenizerConfig, most_frequent, spell_bytes
from jaxgpt.registry import register

# Letters and digits, or signs, each with the space before it; white space, less the space the next word takes.
_WORD = re.compile(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s")


@register("word")
@dataclasses.dataclass(frozen=True)
class WordConfig(TokenizerConfig):
    """Frequent words are tokens, with the space before them, others are bytes. For languages that write spaces."""

    max_words: int = 8192  # keep the most frequent ones
    min_count: int = 2  # and none seen fewer times than this

    def __post_init__(self) -> None:
        if self.max_words < 1:
            raise ValueError(f"max_words: must be at least 1, got {self.max_words}")
        if self.min_count < 1:
            raise ValueError(f"min_count: must be at least 1, got {self.min_count}")

    def train(self, texts: Iterable[str]) -> Tokenizer:
        counts: collections.Counter[str] = collections.Counter()
        for text in texts:
            counts.update(_WORD.findall(text))
        seen = {word: count for word, count in counts.items() if count >= self.min_count}
        return WordTokenizer(most_frequent(seen, self.max_words))

    @classmethod
    def restore(cls, pieces: Sequence[str], directory: Path) -> Tokenizer:
        return WordTokenizer(pieces)


class WordTokenizer(Tokenizer):
    """One token per known word, bytes for the others."""

    kind = "word"
    words = _WORD

    def _spell(self, words: list[str]) -> Iterable[Sequence[int]]:
        for word in words:
            known = self._ids.get(word)
            yield [known] if known is not None else spell_bytes(word)
