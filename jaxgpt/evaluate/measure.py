"""All protocols of an evaluation, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from jaxgpt.data.dataset import Dataset
from jaxgpt.data.sources.text import TextDataset
from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.config import EvaluationConfig
from jaxgpt.evaluate.protocols.base import Measurement
from jaxgpt.evaluate.scorer import Scorer, batched


def check(config: EvaluationConfig, dataset: Dataset, train_length: int) -> None:
    """Raise DataError or ConfigError, before anything is trained, where `dataset` does not allow this evaluation."""
    if config.ngram is not None and not isinstance(dataset, TextDataset):
        raise ConfigError("evaluate.ngram: n-grams are counted on text, and these data have none; set it to null")
    for protocol in config.active().values():
        protocol.check(dataset, train_length)


def evaluate(
    scorer: Scorer,
    config: EvaluationConfig,
    dataset: Dataset,
    train_length: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Measurement]:
    """Measurements of `scorer` (a model's or an n-gram's) on `dataset`, in the order of `config.protocols`.

    `train_length` is the length of which contexts are multiples (`data.reference_length`). `progress(name, done,
    total)` is told of every protocol as it starts. Contexts that the scorer cannot take are left out. Raises
    DataError and ConfigError as `check` does.
    """
    protocols = config.active()
    in_batches = batched(scorer, config.max_tokens_per_batch)
    measurements = []
    for done, (name, protocol) in enumerate(protocols.items()):
        if progress is not None:
            progress(name, done, len(protocols))
        measurements += protocol.run(in_batches, dataset, train_length)
    return measurements
