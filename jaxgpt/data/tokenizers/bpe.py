"""Byte-pair encoding."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxgpt.data.tokenizers.sentence_piece import SentencePieceConfig, SentencePieceTokenizer
from jaxgpt.registry import register


class BpeTokenizer(SentencePieceTokenizer):
    """Merges applied in the order they were learned."""

    kind = "bpe"


@register("bpe")
@dataclasses.dataclass(frozen=True)
class BpeConfig(SentencePieceConfig):
    """Byte-pair encoding by SentencePiece, bytes for rare characters (Sennrich et al. 2016, arXiv:1508.07909)."""

    model_type: ClassVar[str] = "bpe"
    tokenizer_class: ClassVar[type[SentencePieceTokenizer]] = BpeTokenizer
