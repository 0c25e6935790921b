"""Beam search, as transformers runs it.

Shapes: B batch, K beams, M candidates, V vocabulary, L new tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.generate.decode import padded, placed
from jaxgpt.models.base import Cache, Model

NOTHING = -1e9  # the score of a beam that is not there


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """How beams are kept and scored.

    beams: K, hypotheses followed at a time, and given back.
    length_penalty: a finished hypothesis scores its log-probability over its new tokens to this power (Wu et al. 2016,
        arXiv:1609.08144, section 7, in the simpler form of transformers).
    early_stopping: `True`: a row ends with its K-th finished hypothesis. `False`: when the best live one could not beat
        the worst finished if it ended now. "never": when it could not at any length that is left.
    """

    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError(f"beams: {self.beams} must be at least 1")


class Hypothesis(NamedTuple):
    """One result: its new tokens, the one that ends it included, and its score."""

    tokens: list[int]
    score: float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Beams:
    cache: Cache  # rows are B * K
    logits_BKV: Array
    live_BK: Array  # float32, sums of log-probabilities
    tokens_BKL: Array  # int32, of live beams
    finished_BK: Array  # float32, penalised scores, best first
    results_BKL: Array  # int32, -1 behind the end
    closed_B: Array  # bool, rows to whose results nothing is added
    pad_R: Array  # int32 [B * K]
    count: Array  # int32 scalar


def beam_search(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    search: BeamSearch | None = None,
    *,
    stop: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """The K best continuations of each prompt, best first. Raises ConfigError for an empty prompt."""
    search = BeamSearch() if search is None else search
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens: {max_new_tokens} must be at least 1")
    tokens, pads = padded(prompts, bucket=1)
    state = _start(model, tokens, pads, search.beams, max_new_tokens)
    while int(state.count) < max_new_tokens and not bool(state.closed_B.all()):
        state = _step(model, state, search, tuple(stop))
    scores, results = np.asarray(state.finished_BK), np.asarray(state.results_BKL)
    return [
        [
            Hypothesis([token for token in row.tolist() if token >= 0], float(score))
            for row, score in zip(rows, found, strict=True)
            if score > NOTHING / 2
        ]
        for rows, found in zip(results, scores, strict=True)
    ]


@functools.partial(jax.jit, static_argnames=("beams", "limit"))
def _start(model: Model, tokens_BT: Array, pad_B: Array, beams: int, limit: int) -> _Beams:
    batch, length = tokens_BT.shape
    rows = jnp.repeat(tokens_BT, beams, axis=0)
    pads = jnp.repeat(pad_B, beams)
    index = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], rows.shape)
    cache = model.init_cache(batch * beams, length + limit)
    out = model(rows, placed(index, pads), cache, logits_from=length - 1)
    assert out.cache is not None
    empty = jnp.full((batch, beams, limit), -1, jnp.int32)
    live = jnp.full((batch, beams), NOTHING).at[:, 0].set(0.0)
    return _Beams(
        cache=out.cache,
        logits_BKV=out.logits[:, -1].reshape(batch, beams, -1),
        live_BK=live,
        tokens_BKL=empty,
        finished_BK=jnp.full((batch, beams), NOTHING),
        results_BKL=empty,
        closed_B=jnp.zeros((batch,), bool),
        pad_R=pads,
        count=jnp.int32(0),
    )


@functools.partial(jax.jit, static_argnames=("search", "stop"), donate_argnames=("state",))
def _step(model: Model, state: _Beams, search: BeamSearch, stop: tuple[int, ...]) -> _Beams:
    """One token more: candidates ranked, finished ones kept, the best others followed."""
    batch, beams, vocab = state.logits_BKV.shape
    limit = state.tokens_BKL.shape[-1]
    count = state.count + 1
    reached = state.live_BK[:, :, None] + jax.nn.log_softmax(state.logits_BKV.astype(jnp.float32), axis=-1)
    candidates = max(2, 1 + len(stop)) * beams
    score_BM, place_BM = jax.lax.top_k(reached.reshape(batch, -1), candidates)
    beam_BM, token_BM = place_BM // vocab, (place_BM % vocab).astype(jnp.int32)
    tokens_BML = jnp.take_along_axis(state.tokens_BKL, beam_BM[:, :, None], axis=1).at[:, :, state.count].set(token_BM)

    ends = (token_BM[:, :, None] == jnp.array(stop, jnp.int32).reshape(1, 1, -1)).any(axis=-1) | (count == limit)
    # Only who is among the best K may finish.
    may = ends & (jnp.arange(candidates) < beams)[None] & ~state.closed_B[:, None] & (score_BM > NOTHING / 2)
    penalised = jnp.where(may, score_BM / count.astype(jnp.float32) ** search.length_penalty, NOTHING)
    pool = jnp.concatenate([state.finished_BK, penalised], axis=1)
    finished_BK, kept = jax.lax.top_k(pool, beams)
    results = jnp.concatenate([state.results_BKL, tokens_BML], axis=1)
    results_BKL = jnp.take_along_axis(results, kept[:, :, None], axis=1)

    live_BK, chosen = jax.lax.top_k(jnp.where(ends, NOTHING, score_BM), beams)
    token_BK = jnp.take_along_axis(token_BM, chosen, axis=1)
    beam_BK = jnp.take_along_axis(beam_BM, chosen, axis=1)
    tokens_BKL = jnp.take_along_axis(tokens_BML, chosen[:, :, None], axis=1)
    closed_B = state.closed_B | ~_may_improve(live_BK, finished_BK, count, limit, search)

    source = (jnp.arange(batch)[:, None] * beams + beam_BK).reshape(-1)
    layers = jax.tree.map(lambda leaf: leaf[source], state.cache.layers)
    cache = dataclasses.replace(state.cache, layers=layers)
    index = jnp.broadcast_to(cache.at, (batch * beams, 1)).astype(jnp.int32)
    out = model(token_BK.reshape(-1, 1), placed(index, state.pad_R), cache)
    assert out.cache is not None
    logits = out.logits[:, -1].reshape(batch, beams, vocab)
    return _Beams(out.cache, logits, live_BK, tokens_BKL, finished_BK, results_BKL, closed_B, state.pad_R, count)


def _may_improve(live_BK: Array, finished_BK: Array, count: Array, limit: int, search: BeamSearch) -> Array:
    """bool [B]: whether a row's results may still get better."""
    full = (finished_BK > NOTHING / 2).all(axis=1)
    if search.early_stopping is True:
        return ~full
    longest = search.early_stopping == "never" and search.length_penalty > 0
    length = jnp.float32(limit) if longest else count.astype(jnp.float32)
    best = live_BK.max(axis=1) / length**search.length_penalty
    return best > jnp.where(full, finished_BK.min(axis=1), NOTHING)
