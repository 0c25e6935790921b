"""Loss by position: where in a long window prediction begins to fail."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.dataset import Dataset
from jaxgpt.data.tokens import TokenSplit
from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.protocols.base import Measurement, ProtocolConfig, losses, text_of
from jaxgpt.evaluate.scorer import Scorer
from jaxgpt.evaluate.spans import spread, tokens_of, windows
from jaxgpt.registry import register

PATH = "evaluate.protocols.by_position"


@register("by_position")
@dataclasses.dataclass(frozen=True)
class ByPositionConfig(ProtocolConfig):
    """The mean loss at each position of long windows that start with no context, in buckets of equal width.

    The prediction at position t sees t + 1 tokens. Positions differ in the tokens they score, so neighbouring buckets
    are not paired as contexts of the fixed-target protocol are; models are, since all see the same windows.

    Metric: `position_nll` (nats/token), its context being the end of the bucket: the number of tokens its last
    prediction sees. With buckets of 16 tokens, context 32 is the mean over positions 16 to 31.
    """

    window: float = 4.0  # training lengths
    bucket: float = 0.125  # training lengths; must divide the window
    rows: int = 48  # windows, at most; spread evenly over the token stream

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError("rows must be at least 1")

    def _sizes(self, train_length: int) -> tuple[int, int]:
        """Tokens of the window and of a bucket."""
        window = tokens_of(self.window, train_length, f"{PATH}.window")
        bucket = tokens_of(self.bucket, train_length, f"{PATH}.bucket")
        if window % bucket:
            raise ConfigError(f"{PATH}.bucket: {bucket} tokens do not divide the window of {window}")
        return window, bucket

    def _stops(self, split: TokenSplit, train_length: int) -> np.ndarray:
        window, _ = self._sizes(train_length)
        return spread(split.num_tokens, self.rows, window, "evaluation by position") + window + 1

    def check(self, dataset: Dataset, train_length: int) -> None:
        split = text_of(dataset, "by_position").validation
        self._stops(split, train_length)

    def run(self, scorer: Scorer, dataset: Dataset, train_length: int) -> list[Measurement]:
        split = text_of(dataset, "by_position").validation
        window, bucket = self._sizes(train_length)
        inputs_RT, targets_RT = windows(split.tokens, self._stops(split, train_length), window)
        losses_RT = losses("by_position", scorer, inputs_RT, targets_RT)
        if losses_RT is None:
            return []
        means = losses_RT.reshape(-1, window // bucket, bucket).mean(axis=(0, 2), dtype=np.float64)
        return [
            Measurement("position_nll", (number + 1) * bucket, float(mean), "nats/token")
            for number, mean in enumerate(means)
        ]
