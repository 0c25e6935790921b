"""Non-overlapping windows: what most papers print as perplexity at a length."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxgpt.data.dataset import Dataset
from jaxgpt.data.tokens import TokenSplit
from jaxgpt.evaluate.protocols.base import Measurement, ProtocolConfig, averages, by_document, losses, text_of
from jaxgpt.evaluate.scorer import Scorer
from jaxgpt.evaluate.spans import contexts_of, spread, windows
from jaxgpt.registry import register


@register("non_overlapping")
@dataclasses.dataclass(frozen=True)
class NonOverlappingConfig(ProtocolConfig):
    """The text cut into windows of c tokens, each predicted from nothing before it.

    Source: Press et al. 2022, arXiv:2108.12409. The prediction at position t of a window sees t + 1 tokens, so longer
    windows have fewer badly informed tokens at their start: part of a gain from length is this early-token effect.
    Windows follow the token stream of the split, across the ends of documents, as there. Every length scores the same
    tokens: stretches of the least common multiple of the lengths, spread evenly over the stream; a tail that fills no
    stretch is not scored.

    Metrics: `non_overlapping_nll` (nats/token) and `non_overlapping_bits_per_byte` (bits/byte).
    """

    multiples: tuple[float, ...] = (1.0, 2.0, 4.0)  # window lengths, in training lengths
    stretches: int = 24  # at most; each as long as the longest window (least common multiple of all)

    def __post_init__(self) -> None:
        if not self.multiples or self.stretches < 1:
            raise ValueError("needs at least one multiple and one stretch")

    def _contexts(self, train_length: int) -> list[int]:
        return contexts_of(self.multiples, train_length, "evaluate.protocols.non_overlapping.multiples")

    def _starts(self, split: TokenSplit, train_length: int) -> tuple[np.ndarray, int]:
        """First inputs of the stretches, and the length of a stretch."""
        length = math.lcm(*self._contexts(train_length))
        return spread(split.num_tokens, self.stretches, length, "evaluation in non-overlapping windows"), length

    def check(self, dataset: Dataset, train_length: int) -> None:
        split = text_of(dataset, "non_overlapping").validation
        self._starts(split, train_length)

    def run(self, scorer: Scorer, dataset: Dataset, train_length: int) -> list[Measurement]:
        split, byte_lengths = text_of(dataset, "non_overlapping").validation, dataset.tokenizer.byte_lengths
        starts, length = self._starts(split, train_length)
        measurements = []
        for context in self._contexts(train_length):
            stops = (starts[:, None] + np.arange(context, length + 1, context)).reshape(-1) + 1
            inputs_RT, targets_RT = windows(split.tokens, stops, context)
            losses_RT = losses("non_overlapping", scorer, inputs_RT, targets_RT)
            if losses_RT is not None:
                documents = by_document(split, stops, losses_RT)
                measurements += averages("non_overlapping", context, losses_RT, byte_lengths[targets_RT], documents)
        return measurements
