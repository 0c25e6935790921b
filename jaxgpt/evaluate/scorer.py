"""Scorers: what gives every target token its negative log-likelihood, a model or a baseline.

Shapes: R rows (any number), B rows of one batch, T tokens of a row, K scored tokens at the end of a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class Predictor(Scorer, Protocol):
    """A scorer that also says what it would write."""

    def hits(self, inputs_BT: np.ndarray, targets_BT: np.ndarray, /, last: int | None = None) -> np.ndarray:
        """Whether each target is the most likely token, bool `[B, K]`, for the same K and with the same errors. Equally
        likely tokens count in the order of their ids."""
        ...


def model_scorer(model: Callable[..., Any]) -> Predictor:
    """The scorer of a model: a pytree called as `model(tokens_BT, logits_from=t)` that returns an object whose
    `.logits` are `[B, T - t, V]`, those of the positions from t on, so that a head of many thousand tokens is
    computed only where it is needed. Compiled once per shape and `last`, and shared by all models of one structure.
    """
    return _ModelScorer(model)


class _ModelScorer:
    def __init__(self, model: Callable[..., Any]):
        self.model = model

    def __call__(self, inputs_BT: np.ndarray, targets_BT: np.ndarray, last: int | None = None) -> np.ndarray:
        return np.asarray(_model_losses(self.model, inputs_BT, targets_BT, last=last))

    def hits(self, inputs_BT: np.ndarray, targets_BT: np.ndarray, last: int | None = None) -> np.ndarray:
        return np.asarray(_model_hits(self.model, inputs_BT, targets_BT, last=last))


@functools.partial(jax.jit, static_argnames="last")
def _model_losses(model: Any, inputs_BT: jax.Array, targets_BT: jax.Array, last: int | None) -> jax.Array:
    logits_BKV, targets_BK = _last(model, inputs_BT, targets_BT, last)
    return token_losses(logits_BKV.astype(jnp.float32), targets_BK)


@functools.partial(jax.jit, static_argnames="last")
def _model_hits(model: Any, inputs_BT: jax.Array, targets_BT: jax.Array, last: int | None) -> jax.Array:
    logits_BKV, targets_BK = _last(model, inputs_BT, targets_BT, last)
    return jnp.argmax(logits_BKV, axis=-1) == targets_BK


def _last(model: Any, inputs_BT: jax.Array, targets_BT: jax.Array, last: int | None) -> tuple[jax.Array, jax.Array]:
    """The last logits and targets of each row."""
    first = 0 if last is None else inputs_BT.shape[1] - last
    return model(inputs_BT, logits_from=first).logits, targets_BT[:, first:]


def batched(scorer: Scorer, max_tokens: int) -> Scorer:
    """A scorer of any number of rows, passed on as batches of at most `max_tokens` tokens (at least one row); a
    `Predictor` where `scorer` is one.

    For one T every batch has the same number of rows: the last is filled up with copies of its first row, whose scores
    are dropped. A compiled scorer therefore compiles once per T.
    """
    return (_BatchedPredictor if isinstance(scorer, Predictor) else _Batched)(scorer, max_tokens)


class _Batched:
    def __init__(self, scorer: Any, max_tokens: int):
        self.scorer, self.max_tokens = scorer, max_tokens

    def __call__(self, inputs_RT: np.ndarray, targets_RT: np.ndarray, last: int | None = None) -> np.ndarray:
        return self._each(self.scorer, np.float32, inputs_RT, targets_RT, last)

    def _each(
        self, score: Scorer, dtype: type, inputs_RT: np.ndarray, targets_RT: np.ndarray, last: int | None
    ) -> np.ndarray:
        rows, length = inputs_RT.shape
        size = max(1, self.max_tokens // length)
        scores_RK = np.empty((rows, length if last is None else last), dtype)
        for start in range(0, rows, size):
            batch = np.arange(start, start + size)
            batch[batch >= rows] = start
            scores_RK[start : start + size] = score(inputs_RT[batch], targets_RT[batch], last)[: rows - start]
        return scores_RK


class _BatchedPredictor(_Batched):
    def hits(self, inputs_RT: np.ndarray, targets_RT: np.ndarray, last: int | None = None) -> np.ndarray:
        return self._each(self.scorer.hits, np.bool_, inputs_RT, targets_RT, last)
