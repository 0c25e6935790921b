"""What protocols share: the base of their slot, the measurement, and sums of losses."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import TYPE_CHECKING

import numpy as np

from jaxgpt.errors import ContextTooLong
from jaxgpt.evaluate.scorer import Scorer
from jaxgpt.registry import slot

if TYPE_CHECKING:
    from jaxgpt.data.tokens import TokenSplit

log = logging.getLogger("jaxgpt.evaluate")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One number about one model: `context` in tokens, `value` in `unit` (nats/token, bits/byte, nats)."""

    metric: str
    context: int
    value: float
    unit: str


@slot("protocol", package="jaxgpt.evaluate.protocols")
@dataclasses.dataclass(frozen=True)
class ProtocolConfig:
    """A way of measuring how well held-out text is predicted. Which tokens are scored depends on the split and the
    training length, never on the scorer.
    """

    def check(self, split: TokenSplit, train_length: int) -> None:
        """Raise DataError or ConfigError where `split` or `train_length` does not allow this protocol: call it before
        training, which is when too little text should be found out."""
        raise TypeError(f"{type(self).__qualname__} must define check()")

    def run(self, scorer: Scorer, split: TokenSplit, byte_lengths: np.ndarray, train_length: int) -> list[Measurement]:
        """Measurements in order of context. `scorer` takes any number of rows (`batched`); `byte_lengths [V]` are the
        UTF-8 bytes each token stands for. A context that the scorer refuses (ContextTooLong), or on which its loss is
        not a number, is left out and logged. Raises DataError and ConfigError as `check` does.
        """
        raise TypeError(f"{type(self).__qualname__} must define run()")


def losses(
    name: str, scorer: Scorer, inputs_RT: np.ndarray, targets_RT: np.ndarray, last: int | None = None
) -> np.ndarray | None:
    """Losses in nats, float32 `[R, K]`, or None (and a line in the log) where protocol `name` can measure nothing."""
    context = inputs_RT.shape[1]
    try:
        losses_RK = scorer(inputs_RT, targets_RT, last)
    except ContextTooLong as error:
        log.warning("%s: no measurement at context %d: %s", name, context, error)
        return None
    if not np.isfinite(losses_RK).all():
        log.warning("%s: no measurement at context %d: the loss is not a finite number", name, context)
        return None
    return losses_RK


def averages(name: str, context: int, losses_RK: np.ndarray, bytes_RK: np.ndarray) -> list[Measurement]:
    """`<name>_nll`, summed in float64 over all tokens and divided by their number, and `<name>_bits_per_byte`, the
    same sum in bits divided by the bytes the tokens stand for: comparable across tokenizers.
    """
    total = float(losses_RK.sum(dtype=np.float64))
    measurements = [Measurement(f"{name}_nll", context, total / losses_RK.size, "nats/token")]
    num_bytes = int(bytes_RK.sum(dtype=np.int64))
    if num_bytes > 0:  # token ids of a synthetic task stand for no text
        bits = total / math.log(2) / num_bytes
        measurements.append(Measurement(f"{name}_bits_per_byte", context, bits, "bits/byte"))
    return measurements
