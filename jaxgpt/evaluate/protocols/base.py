"""What protocols share: the base of their slot, the measurement, and sums of losses."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import numpy as np

from jaxgpt.data.dataset import Dataset
from jaxgpt.data.sources.text import TextDataset
from jaxgpt.data.tokens import TokenSplit
from jaxgpt.errors import ConfigError, ContextTooLong
from jaxgpt.evaluate.scorer import Predictor, Scorer
from jaxgpt.registry import slot

log = logging.getLogger("jaxgpt.evaluate")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One number about one model: `context` in tokens (for a task its length), `value` in `unit` (nats/token, bits/byte
    or share).

    `documents` holds (number of the document, sum of losses, tokens) where the value is their quotient over documents.
    """

    metric: str
    context: int
    value: float
    unit: str
    documents: tuple[tuple[int, float, int], ...] = ()


@slot("protocol", package="jaxgpt.evaluate.protocols")
@dataclasses.dataclass(frozen=True)
class ProtocolConfig:
    """A way of measuring how well held-out text is predicted. Which tokens are scored depends on the dataset and the
    training length, never on the scorer.
    """

    def check(self, dataset: Dataset, train_length: int) -> None:
        """Raise DataError or ConfigError where `dataset` or `train_length` does not allow this protocol: call it before
        training, which is when too little text should be found out."""
        raise TypeError(f"{type(self).__qualname__} must define check()")

    def run(self, scorer: Scorer, dataset: Dataset, train_length: int) -> list[Measurement]:
        """Measurements in order of context. `scorer` takes any number of rows (`batched`). A context that the scorer
        refuses (ContextTooLong), or on which its loss is not a number, is left out and logged. Raises DataError and
        ConfigError as `check` does.
        """
        raise TypeError(f"{type(self).__qualname__} must define run()")


def text_of(dataset: Dataset, name: str) -> TextDataset:
    """`dataset`, of which protocol `name` needs the text. Raises ConfigError where it has none."""
    if not isinstance(dataset, TextDataset):
        raise ConfigError(
            f"evaluate.protocols.{name}: needs text to predict, and these data have none; set "
            f"evaluate.protocols.{name}=null"
        )
    return dataset


def losses(
    name: str, scorer: Scorer, inputs_RT: np.ndarray, targets_RT: np.ndarray, last: int | None = None
) -> np.ndarray | None:
    """Losses in nats, float32 `[R, K]`, or None (and a line in the log) where protocol `name` can measure nothing."""
    losses_RK = _unless_too_long(name, scorer, inputs_RT, targets_RT, last)
    if losses_RK is None or np.isfinite(losses_RK).all():
        return losses_RK
    log.warning("%s: no measurement at context %d: the loss is not a finite number", name, inputs_RT.shape[1])
    return None


def hits(
    name: str, scorer: Scorer, inputs_RT: np.ndarray, targets_RT: np.ndarray, last: int | None = None
) -> np.ndarray | None:
    """Whether each target is the most likely token, bool `[R, K]`, or None where protocol `name` can measure nothing.
    Raises ConfigError for a scorer that only gives losses, as n-grams do."""
    if not isinstance(scorer, Predictor):
        raise ConfigError(f"evaluate.protocols.{name}: an n-gram predicts no token; set evaluate.ngram=null")
    return _unless_too_long(name, scorer.hits, inputs_RT, targets_RT, last)


def _unless_too_long(name: str, score: Scorer, inputs_RT: np.ndarray, targets_RT: np.ndarray, last: int | None) -> Any:
    try:
        return score(inputs_RT, targets_RT, last)
    except ContextTooLong as error:
        log.warning("%s: no measurement at context %d: %s", name, inputs_RT.shape[1], error)
        return None


def by_document(split: TokenSplit, stops: np.ndarray, losses_RK: np.ndarray) -> tuple[tuple[int, float, int], ...]:
    """(document, sum of losses, tokens) for the scored tokens, the K before each stop, ascending."""
    tokens_RK = stops[:, None] + np.arange(-losses_RK.shape[1], 0)
    documents = np.searchsorted(split.offsets, tokens_RK.reshape(-1), side="right") - 1
    totals = np.bincount(documents, weights=losses_RK.reshape(-1).astype(np.float64))
    counts = np.bincount(documents)
    return tuple((int(d), float(totals[d]), int(counts[d])) for d in np.flatnonzero(counts))


def averages(
    name: str,
    context: int,
    losses_RK: np.ndarray,
    bytes_RK: np.ndarray,
    documents: tuple[tuple[int, float, int], ...] = (),
) -> list[Measurement]:
    """`<name>_nll`, summed in float64 over all tokens and divided by their number, and `<name>_bits_per_byte`, the
    same sum in bits divided by the bytes the tokens stand for: comparable across tokenizers.
    """
    total = float(losses_RK.sum(dtype=np.float64))
    measurements = [Measurement(f"{name}_nll", context, total / losses_RK.size, "nats/token", documents)]
    num_bytes = int(bytes_RK.sum(dtype=np.int64))
    if num_bytes > 0:  # token ids of a synthetic task stand for no text
        bits = total / math.log(2) / num_bytes
        measurements.append(Measurement(f"{name}_bits_per_byte", context, bits, "bits/byte"))
    return measurements
