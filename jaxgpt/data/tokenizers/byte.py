"""Bytes of UTF-8 as tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxgpt.data.tokenizers.base import FIRST_BYTE, FIRST_PIECE, Tokenizer, TokenizerConfig, require_utf8
from jaxgpt.registry import register


@register("byte")
@dataclasses.dataclass(frozen=True)
class ByteConfig(TokenizerConfig):
    """Every byte of UTF-8 is a token; nothing is learned, the vocabulary is 257."""

    def train(self, texts: Iterable[str]) -> Tokenizer:
        return ByteTokenizer(())

    def known_vocab_size(self) -> int:
        return FIRST_PIECE

    @classmethod
    def restore(cls, pieces: Sequence[str], directory: Path) -> Tokenizer:
        return ByteTokenizer(pieces)


class ByteTokenizer(Tokenizer):
    """Bytes, shifted by one."""

    kind = "byte"

    def encode(self, text: str) -> np.ndarray:
        require_utf8(text)
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32) + FIRST_BYTE
