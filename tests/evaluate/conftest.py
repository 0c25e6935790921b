"""A stream in which a token's id is its index, and an oracle scorer that shows what it was asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from jaxgpt.data.sources.text import TextDataset
from jaxgpt.data.tokenizers.base import Tokenizer
from jaxgpt.data.tokens import TokenSplit, split_of
from jaxgpt.errors import ContextTooLong


class Oracle:
    """A scorer whose loss is `loss(position, target)`; remembers the shape of every call and the targets it scored."""

    def __init__(self, loss: Callable[[np.ndarray, np.ndarray], np.ndarray], longest: int | None = None):
        self.loss, self.longest = loss, longest
        self.calls: list[tuple[int, int, int | None]] = []
        self.scored: dict[int, list[int]] = {}  # row length -> targets, in order

    def __call__(self, inputs_BT: np.ndarray, targets_BT: np.ndarray, last: int | None = None) -> np.ndarray:
        rows, length = inputs_BT.shape
        assert inputs_BT.dtype == targets_BT.dtype == np.int32
        assert (inputs_BT[:, 1:] == targets_BT[:, :-1]).all()
        if self.longest is not None and length > self.longest:
            raise ContextTooLong(f"positions end at {self.longest}")
        self.calls.append((rows, length, last))
        kept = targets_BT[:, -(last or length) :]
        self.scored.setdefault(length, []).extend(kept.reshape(-1).tolist())
        positions = np.broadcast_to(np.arange(length - kept.shape[1], length), kept.shape)
        return self.loss(positions, kept).astype(np.float32)


@pytest.fixture
def oracle() -> type[Oracle]:
    return Oracle


class Bytes(Tokenizer):
    """A vocabulary whose token `i` stands for `byte_lengths[i]` bytes."""

    def __init__(self, byte_lengths: np.ndarray):
        super().__init__(())
        self.byte_lengths = byte_lengths


@pytest.fixture
def text() -> Callable[..., TextDataset]:
    """A dataset whose validation text is a split; unless told otherwise every token stands for one byte."""

    def make(split: TokenSplit, byte_lengths: np.ndarray | None = None) -> TextDataset:
        tokenizer = Bytes(np.ones(100_000, np.int64) if byte_lengths is None else byte_lengths)
        return TextDataset(
            tokenizer, "", 16, "windows", train=split, validation=split, corpus_fingerprint="", weights={}
        )

    return make


@pytest.fixture
def counting_text(text) -> Callable[..., TextDataset]:
    """Documents of the given lengths whose token ids count up through the whole stream."""

    def make(*lengths: int, byte_lengths: np.ndarray | None = None) -> TextDataset:
        ends = np.cumsum([0, *lengths])
        split = split_of([np.arange(start, stop) for start, stop in itertools.pairwise(ends)])
        return text(split, byte_lengths)

    return make
