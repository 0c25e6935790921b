"""Sliding window: windows that overlap, so that every scored token has almost a whole window before it."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.dataset import Dataset
from jaxgpt.data.tokens import TokenSplit
from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.protocols.base import Measurement, ProtocolConfig, averages, losses, text_of
from jaxgpt.evaluate.scorer import Scorer
from jaxgpt.evaluate.spans import contexts_of, quarter, spread, windows
from jaxgpt.registry import register

PATH = "evaluate.protocols.sliding"


@register("sliding")
@dataclasses.dataclass(frozen=True)
class SlidingConfig(ProtocolConfig):
    """A window of w tokens moved on by `stride` tokens; only its last `stride` predictions are scored.

    Source: Baevski & Auli 2019, arXiv:1809.10853; Press et al. 2022, arXiv:2108.12409. A scored token sees w - stride
    + 1 to w tokens, the first window being no exception: scoring starts where the longest window has its text, and
    what lies before is context only. So every window length scores the same tokens: `steps` windows in a row, in each
    of `stretches` places spread evenly over the token stream of the split, across the ends of documents.

    Metrics, with the window as context: `sliding_nll` (nats/token) and `sliding_bits_per_byte` (bits/byte).
    """

    windows: tuple[float, ...] = (1.0, 2.0, 4.0)  # window lengths, in training lengths
    stride: int | None = None  # tokens; None: a quarter of the training length
    steps: int = 8  # windows in a row at each stretch
    stretches: int = 4  # at most

    def __post_init__(self) -> None:
        if not self.windows:
            raise ValueError("windows must name at least one length")
        if self.steps < 1 or self.stretches < 1 or (self.stride is not None and self.stride < 1):
            raise ValueError("stride, steps and stretches must be at least 1")

    def _contexts(self, train_length: int) -> list[int]:
        contexts, stride = (
            contexts_of(self.windows, train_length, f"{PATH}.windows"),
            quarter(self.stride, train_length),
        )
        if stride > contexts[0]:
            raise ConfigError(
                f"{PATH}.stride: {stride} is more than the shortest window of {contexts[0]} tokens, so tokens between "
                f"windows would not be scored; set {PATH}.stride={contexts[0]} or less"
            )
        return contexts

    def _stops(self, split: TokenSplit, train_length: int) -> np.ndarray:
        longest, stride = self._contexts(train_length)[-1], quarter(self.stride, train_length)
        length = longest + (self.steps - 1) * stride
        starts = spread(split.num_tokens, self.stretches, length, "evaluation with a sliding window")
        return (starts[:, None] + np.arange(longest, length + 1, stride)).reshape(-1) + 1

    def check(self, dataset: Dataset, train_length: int) -> None:
        split = text_of(dataset, "sliding").validation
        self._stops(split, train_length)

    def run(self, scorer: Scorer, dataset: Dataset, train_length: int) -> list[Measurement]:
        split, byte_lengths = text_of(dataset, "sliding").validation, dataset.tokenizer.byte_lengths
        stops, stride = self._stops(split, train_length), quarter(self.stride, train_length)
        measurements = []
        for window in self._contexts(train_length):
            inputs_RT, targets_RT = windows(split.tokens, stops, window)
            losses_RK = losses("sliding", scorer, inputs_RT, targets_RT, stride)
            if losses_RK is not None:
                measurements += averages("sliding", window, losses_RK, byte_lengths[targets_RT[:, -stride:]])
        return measurements
