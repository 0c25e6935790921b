"""What changes logits before a token is drawn: penalties for what was said, temperature, and which tokens may come.

All take and give float32 logits [B, V]; a token that is ruled out has -inf. The definitions, ties included, are those
of transformers. Filters leave at least one token; where n-grams would rule out all, they rule out none.

Shapes: B batch, V vocabulary, S tokens of history.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; what is None or 0 does nothing. Fields act in the order in which they stand.

    repetition_penalty: logits of tokens that were there are divided by it if positive, else multiplied (Keskar et al.
        2019, CTRL, arXiv:1909.05858, section 4.1).
    no_repeat_ngram: no run of so many tokens comes twice.
    temperature: divides logits; 0 is greedy: the likeliest token, whatever the rest says.
    top_k: the k likeliest stay (Fan et al. 2018, arXiv:1805.04833).
    top_p: the likeliest stay until they hold this probability (Holtzman et al. 2019, arXiv:1904.09751).
    min_p: those at least this share as likely as the likeliest stay (Nguyen et al. 2024, arXiv:2407.01082).
    typical_p: those whose surprise is nearest to the entropy stay until they hold this probability (Meister et al.
        2022, arXiv:2202.00666).
    epsilon: those at least this likely stay (Hewitt et al. 2022, arXiv:2210.15191).
    eta: those at least min(eta, sqrt(eta) exp(-entropy)) likely stay (the same, section 3.2).
    """

    repetition_penalty: float | None = None
    no_repeat_ngram: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon: float | None = None
    eta: float | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature: {self.temperature} must be at least 0")
        if self.repetition_penalty is not None and self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty: {self.repetition_penalty} must be greater than 0")
        if self.no_repeat_ngram < 0:
            raise ValueError(f"no_repeat_ngram: {self.no_repeat_ngram} must be at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: {self.top_k} must be at least 1")
        for name in ("top_p", "min_p", "typical_p", "epsilon", "eta"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name}: {value} must be greater than 0 and at most 1")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def logits(self, logits_BV: Array, history_BS: Array, said_BS: Array) -> Array:
        """Logits to draw from. history: tokens so far, the last one at the end; said: where they are tokens."""
        if self.repetition_penalty is not None:
            logits_BV = repetition_penalty(logits_BV, self.repetition_penalty, history_BS, said_BS)
        if self.no_repeat_ngram:
            logits_BV = no_repeat_ngram(logits_BV, self.no_repeat_ngram, history_BS, said_BS)
        if self.greedy:
            return logits_BV
        logits_BV = logits_BV / self.temperature
        for name, function in FILTERS.items():
            value = getattr(self, name)
            if value is not None:
                logits_BV = function(logits_BV, value)
        return logits_BV

    def draw(self, logits_BV: Array, history_BS: Array, said_BS: Array, key: Array) -> Array:
        """int32 [B]: a token of each row."""
        logits_BV = self.logits(logits_BV.astype(jnp.float32), history_BS, said_BS)
        if self.greedy:
            return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        return jax.random.categorical(key, logits_BV).astype(jnp.int32)


def _keep(logits_BV: Array, kept_BV: Array) -> Array:
    """Logits of what is kept, and of the likeliest."""
    return jnp.where(kept_BV | (logits_BV == logits_BV.max(axis=-1, keepdims=True)), logits_BV, -jnp.inf)


def top_k(logits_BV: Array, k: int) -> Array:
    """Tokens equal to the k-th stay too."""
    least = jax.lax.top_k(logits_BV, min(k, logits_BV.shape[-1]))[0][:, -1:]
    return _keep(logits_BV, logits_BV >= least)


def top_p(logits_BV: Array, p: float) -> Array:
    """Among equal tokens at the boundary, those that come first in a stable sort go first."""
    order = jnp.argsort(logits_BV, axis=-1)  # ascending
    mass = jnp.cumsum(jax.nn.softmax(jnp.take_along_axis(logits_BV, order, axis=-1), axis=-1), axis=-1)
    kept = (mass > 1 - p).at[:, -1].set(True)
    rows = jnp.arange(len(logits_BV))[:, None]
    return jnp.where(jnp.zeros(kept.shape, bool).at[rows, order].set(kept), logits_BV, -jnp.inf)


def min_p(logits_BV: Array, share: float) -> Array:
    probabilities = jax.nn.softmax(logits_BV, axis=-1)
    return _keep(logits_BV, probabilities >= share * probabilities.max(axis=-1, keepdims=True))


def typical_p(logits_BV: Array, mass: float) -> Array:
    """All as near to the entropy as the last one that is needed stay."""
    log_p = jax.nn.log_softmax(logits_BV, axis=-1)
    distance = jnp.abs(-log_p - _entropy(log_p))
    order = jnp.argsort(distance, axis=-1)
    held = jnp.cumsum(jnp.exp(jnp.take_along_axis(log_p, order, axis=-1)), axis=-1)
    last = jnp.minimum((held < mass).sum(axis=-1, keepdims=True), logits_BV.shape[-1] - 1)
    furthest = jnp.take_along_axis(jnp.take_along_axis(distance, order, axis=-1), last, axis=-1)
    return jnp.where(distance <= furthest, logits_BV, -jnp.inf)


def epsilon(logits_BV: Array, least: float) -> Array:
    return _keep(logits_BV, jax.nn.softmax(logits_BV, axis=-1) >= least)


def eta(logits_BV: Array, least: float) -> Array:
    log_p = jax.nn.log_softmax(logits_BV, axis=-1)
    bound = jnp.minimum(least, jnp.sqrt(least) * jnp.exp(-_entropy(log_p)))
    return _keep(logits_BV, jnp.exp(log_p) >= bound)


FILTERS: dict[str, Any] = {
    "top_k": top_k,
    "top_p": top_p,
    "min_p": min_p,
    "typical_p": typical_p,
    "epsilon": epsilon,
    "eta": eta,
}


def _entropy(log_p: Array) -> Array:
    """[B, 1], in nats; tokens that are ruled out count nothing."""
    return -jnp.where(jnp.isfinite(log_p), jnp.exp(log_p) * log_p, 0.0).sum(axis=-1, keepdims=True)


def repetition_penalty(logits_BV: Array, penalty: float, history_BS: Array, said_BS: Array) -> Array:
    rows = jnp.arange(len(logits_BV))[:, None]
    there = jnp.zeros(logits_BV.shape, bool).at[rows, history_BS].max(said_BS)
    return jnp.where(there, jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV)


def no_repeat_ngram(logits_BV: Array, n: int, history_BS: Array, said_BS: Array) -> Array:
    """Rules out each token that followed, somewhere in the history, the n - 1 tokens with which it ends."""
    batch, length = history_BS.shape
    if length < n:
        return logits_BV
    starts = jnp.arange(length - n + 1)
    windows = history_BS[:, starts[:, None] + jnp.arange(n)[None]]  # [B, windows, n]
    whole = said_BS[:, starts[:, None] + jnp.arange(n)[None]].all(axis=-1)
    ending = history_BS[:, length - n + 1 :][:, None]
    same = (windows[:, :, : n - 1] == ending).all(axis=-1) & whole & said_BS[:, length - n + 1 :].all(axis=-1)[:, None]
    rows = jnp.arange(batch)[:, None]
    banned = jnp.zeros(logits_BV.shape, bool).at[rows, windows[:, :, -1]].max(same)
    banned &= ~banned.all(axis=-1, keepdims=True)
    return jnp.where(banned, -jnp.inf, logits_BV)
