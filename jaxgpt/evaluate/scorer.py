"""Scorers: what gives every target token its negative log-likelihood, a model or a baseline.

Shapes: R rows (any number), B rows of one batch, T tokens of a row, K scored tokens at the end of a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgpt.ops.cross_entropy import token_losses


class Scorer(Protocol):
    """Negative log-likelihoods in nats, float32 `[B, K]`, of the last K = `last` targets of each row (None: of all T).

    `inputs_BT` and `targets_BT` are int32; the target at t is the token after the input at t and is predicted from the
    inputs 0..t of its own row, nothing else. Raises `ContextTooLong` if it has no answer for rows of this length.
    """

    def __call__(self, inputs_BT: np.ndarray, targets_BT: np.ndarray, /, last: int | None = None) -> np.ndarray: ...


def model_scorer(model: Callable[..., Any]) -> Scorer:
    """The scorer of a model: a pytree called as `model(tokens_BT, logits_from=t)` that returns an object whose
    `.logits` are `[B, T - t, V]`, those of the positions from t on, so that a head of many thousand tokens is
    computed only where it is needed. Compiled once per shape and `last`, and shared by all models of one structure.
    """

    def score(inputs_BT: np.ndarray, targets_BT: np.ndarray, last: int | None = None) -> np.ndarray:
        return np.asarray(_model_losses(model, inputs_BT, targets_BT, last=last))

    return score


@functools.partial(jax.jit, static_argnames="last")
def _model_losses(model: Any, inputs_BT: jax.Array, targets_BT: jax.Array, last: int | None) -> jax.Array:
    first = 0 if last is None else inputs_BT.shape[1] - last
    logits_BKV = model(inputs_BT, logits_from=first).logits
    return token_losses(logits_BKV.astype(jnp.float32), targets_BT[:, first:])


def batched(scorer: Scorer, max_tokens: int) -> Scorer:
    """A scorer of any number of rows, passed on as batches of at most `max_tokens` tokens (at least one row).

    For one T every batch has the same number of rows: the last is filled up with copies of its first row, whose losses
    are dropped. A compiled scorer therefore compiles once per T.
    """

    def score(inputs_RT: np.ndarray, targets_RT: np.ndarray, last: int | None = None) -> np.ndarray:
        rows, length = inputs_RT.shape
        size = max(1, max_tokens // length)
        losses_RK = np.empty((rows, length if last is None else last), np.float32)
        for start in range(0, rows, size):
            batch = np.arange(start, start + size)
            batch[batch >= rows] = start
            losses_BK = scorer(inputs_RT[batch], targets_RT[batch], last)
            losses_RK[start : start + size] = losses_BK[: rows - start]
        return losses_RK

    return score
