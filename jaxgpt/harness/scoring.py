"""How likely a model finds continuations of unequal length, in batches of few shapes.

Shapes: B rows of a batch, T tokens of a row, K tokens of a continuation, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.errors import DataError
from jaxgpt.models.base import Model
from jaxgpt.ops.cross_entropy import token_losses

SHORTEST = 32  # tokens: shorter rows are filled up to this
FEWEST = 8  # tokens: shorter continuations likewise


@dataclasses.dataclass(frozen=True)
class Pair:
    """A context and what follows it, as tokens. The context holds at least one."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Score:
    """Log-probability of a continuation in nats, and whether greedy decoding would write it."""

    log_probability: float
    greedy: bool


def score(
    model: Model,
    pairs: Sequence[Pair],
    max_length: int,
    batch_size: int,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Score]:
    """The score of every pair. Of a pair longer than `max_length` inputs the context's first tokens are left out, and
    where the continuation alone is longer, its first ones.

    Rows are as long as the next power of two, so that there is little to compile; what fills them follows the
    continuation and changes nothing.

    on_done: is told after every batch how many pairs it held.
    """
    scores: list[Score] = [Score(0.0, True)] * len(pairs)
    rows = {number: _row(pair, max_length) for number, pair in enumerate(pairs) if pair.continuation}
    on_done(len(pairs) - len(rows))
    shape = {number: (_rounded(len(row.inputs), SHORTEST, max_length), row.counted) for number, row in rows.items()}
    order = sorted(rows, key=lambda number: shape[number], reverse=True)  # the most memory first
    while order:
        length, counted = shape[order[0]]
        here = [number for number in order[:batch_size] if shape[number][0] == length]
        order = order[len(here) :]
        batch = [rows[number] for number in here]
        found = _scored(model, batch, batch_size, length, _rounded(counted, FEWEST, length))
        for number, one in zip(here, found, strict=True):
            scores[number] = one
        on_done(len(here))
    return scores


@dataclasses.dataclass(frozen=True)
class _Row:
    inputs: list[int]
    targets: list[int]
    counted: int  # of the last targets


def _row(pair: Pair, max_length: int) -> _Row:
    if not pair.context:
        raise DataError("a continuation needs a context of at least one token, such as the one that begins a text")
    tokens = [*pair.context, *pair.continuation][-(max_length + 1) :]
    return _Row(tokens[:-1], tokens[1:], min(len(pair.continuation), max_length))


def _rounded(count: int, least: int, most: int) -> int:
    """The next power of two, between bounds."""
    return max(count, min(max(least, 1 << (count - 1).bit_length()), most))


def _scored(model: Model, batch: Sequence[_Row], size: int, length: int, counted: int) -> list[Score]:
    """The scores of a batch, filled up to `size` rows of `length` inputs and `counted` targets."""
    inputs_BT, index_BK, targets_BK, real_BK = (
        np.zeros((size, columns), dtype)
        for columns, dtype in ((length, np.int32), (counted, np.int32), (counted, np.int32), (counted, np.bool_))
    )
    for number, row in enumerate(batch):
        inputs_BT[number, : len(row.inputs)] = row.inputs
        index_BK[number, : row.counted] = np.arange(len(row.inputs) - row.counted, len(row.inputs))
        targets_BK[number, : row.counted] = row.targets[-row.counted :]
        real_BK[number, : row.counted] = True
    totals_B, greedy_B = jax.device_get(_sums(model, inputs_BT, index_BK, targets_BK, real_BK))
    return [Score(float(totals_B[number]), bool(greedy_B[number])) for number in range(len(batch))]


@jax.jit
def _sums(model: Model, inputs_BT: Array, index_BK: Array, targets_BK: Array, real_BK: Array) -> tuple[Array, Array]:
    """Log-probability [B] of the targets at `index`, and whether each of them is the likeliest token [B]."""
    x_BTD, _, _ = model.hidden(inputs_BT)
    head = model.head()

    def row(parts: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        x_TD, index_K, targets_K, real_K = parts
        logits_KV = head.logits(x_TD[index_K])  # one row's at a time: those of all are many gigabytes
        losses_K = jnp.where(real_K, token_losses(logits_KV, targets_K), 0.0)
        return -losses_K.sum(), jnp.all((jnp.argmax(logits_KV, axis=-1) == targets_K) | ~real_K)

    return jax.lax.map(row, (x_BTD, index_BK, targets_BK, real_BK))
