"""The unigram language model."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxgpt.data.tokenizers.sentence_piece import SentencePieceConfig, SentencePieceTokenizer
from jaxgpt.registry import register


class UnigramTokenizer(SentencePieceTokenizer):
    """The most probable way to cut a word into pieces."""

    kind = "unigram"


@register("unigram")
@dataclasses.dataclass(frozen=True)
class UnigramConfig(SentencePieceConfig):
    """Unigram language model by SentencePiece, bytes for rare characters (Kudo 2018, arXiv:1804.10959)."""

    model_type: ClassVar[str] = "unigram"
    tokenizer_class: ClassVar[type[SentencePieceTokenizer]] = UnigramTokenizer
