"""All protocols of an evaluation, one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxgpt.data.tokens import TokenSplit
from jaxgpt.evaluate.config import EvaluationConfig
from jaxgpt.evaluate.protocols.base import Measurement
from jaxgpt.evaluate.scorer import Scorer, batched


def check(config: EvaluationConfig, split: TokenSplit, train_length: int) -> None:
    """Raise DataError or ConfigError, before anything is trained, where `split` does not allow this evaluation."""
    for protocol in config.active().values():
        protocol.check(split, train_length)


def evaluate(
    scorer: Scorer,
    config: EvaluationConfig,
    split: TokenSplit,
    byte_lengths: np.ndarray,
    train_length: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Measurement]:
    """Measurements of `scorer` (a model's or an n-gram's) on `split`, in the order of `config.protocols`.

    `byte_lengths [V]` are the UTF-8 bytes of each token (`tokenizer.byte_lengths`), `train_length` the tokens of a
    training sequence, of which contexts are multiples. `progress(name, done, total)` is told of every protocol as it
    starts. Contexts that the scorer cannot take are left out. Raises DataError and ConfigError as `check` does.
    """
    protocols = config.active()
    in_batches = batched(scorer, config.max_tokens_per_batch)
    measurements = []
    for done, (name, protocol) in enumerate(protocols.items()):
        if progress is not None:
            progress(name, done, len(protocols))
        measurements += protocol.run(in_batches, split, byte_lengths, train_length)
    return measurements
