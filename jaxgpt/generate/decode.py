"""Tokens from a model, one after the other: the prompts in one pass, then a compiled loop over a cache.

Prompts of unequal length are padded on the left; padding is never seen, and each row counts its positions from its own
first token. Shapes: B batch, T tokens of the padded prompts, S capacity of the cache, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.generate.filters import Sampling
from jaxgpt.models.base import Cache, Model
from jaxgpt.nn.params import named
from jaxgpt.nn.position.base import Positions

BUCKET = 32  # prompts are padded to a multiple of so many tokens: another length need not compile again
CHUNK = 16  # tokens per call of the compiled loop


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
    """What decoding carries from token to token."""

    cache: Cache
    logits_BV: Array  # of the next token
    history_BS: Array  # int32, tokens so far, the newest last
    said_BS: Array  # bool, where the history holds tokens
    pad_B: Array  # int32, padding before each prompt
    done_B: Array  # bool, rows that have ended
    count: Array  # int32 scalar, tokens drawn


def padded(prompts: Sequence[Sequence[int]], bucket: int = BUCKET) -> tuple[np.ndarray, np.ndarray]:
    """int32 [B, T] of prompts moved to the right, and [B] how much padding stands before each. Raises ConfigError for
    an empty prompt."""
    if not prompts or any(len(prompt) == 0 for prompt in prompts):
        raise ConfigError("prompt: at least one token is needed to go on from")
    length = -(-max(map(len, prompts)) // bucket) * bucket
    tokens = np.zeros((len(prompts), length), np.int32)
    pads = np.array([length - len(prompt) for prompt in prompts], np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, pads[row] :] = prompt
    return tokens, pads


def placed(index_BT: Array, pad_B: Array) -> Positions:
    """Positions of tokens at these places of their rows: padding has segment 0, what follows counts from 0."""
    position = index_BT - pad_B[:, None]
    return Positions(jnp.maximum(position, 0), index_BT, (position >= 0).astype(jnp.int32))


@functools.partial(jax.jit, static_argnames=("capacity",))
def prefill(model: Model, tokens_BT: Array, pad_B: Array, capacity: int) -> Progress:
    """The prompts through the model, into a cache for `capacity` tokens."""
    batch, length = tokens_BT.shape
    index = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], (batch, length))
    where = placed(index, pad_B)
    out = model(tokens_BT, where, model.init_cache(batch, capacity), logits_from=length - 1)
    assert out.cache is not None
    room = ((0, 0), (capacity - length, 0))
    history, said = jnp.pad(tokens_BT, room), jnp.pad(where.segment > 0, room)
    return Progress(out.cache, out.logits[:, -1], history, said, pad_B, jnp.zeros((batch,), bool), jnp.int32(0))


@functools.partial(jax.jit, static_argnames=("sampling", "stop", "steps"), donate_argnames=("progress",))
def advance(
    model: Model, progress: Progress, key: Array, limit: Array, sampling: Sampling, stop: tuple[int, ...], steps: int
) -> tuple[Progress, Array]:
    """Up to `steps` more tokens, int32 [B, steps], -1 where a row had ended or `limit` tokens were drawn."""
    batch = progress.logits_BV.shape[0]

    def running(carry) -> Array:
        progress, _, done = carry
        return (done < steps) & (progress.count < limit) & ~progress.done_B.all()

    def step(carry):
        progress, out, done = carry
        drawn = sampling.draw(
            progress.logits_BV, progress.history_BS, progress.said_BS, jax.random.fold_in(key, progress.count)
        )
        ended = progress.done_B
        out = out.at[:, done].set(jnp.where(ended, -1, drawn))
        if stop:
            ended = ended | (drawn[:, None] == jnp.array(stop, jnp.int32)[None]).any(axis=-1)
        at = progress.cache.at
        where = placed(jnp.broadcast_to(at, (batch, 1)).astype(jnp.int32), progress.pad_B)
        new = model(drawn[:, None], where, progress.cache)
        assert new.cache is not None
        history = jnp.concatenate([progress.history_BS[:, 1:], drawn[:, None]], axis=1)
        said = jnp.concatenate([progress.said_BS[:, 1:], jnp.ones((batch, 1), bool)], axis=1)
        count = progress.count + 1
        return Progress(new.cache, new.logits[:, -1], history, said, progress.pad_B, ended, count), out, done + 1

    start = progress, jnp.full((batch, steps), -1, jnp.int32), jnp.int32(0)
    progress, out, _ = jax.lax.while_loop(running, step, start)
    return progress, out


def stream(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    *,
    stop: Sequence[int] = (),
    seed: int = 0,
    chunk: int = CHUNK,
) -> Iterator[list[list[int]]]:
    """New tokens of every row, `chunk` at a time (fewer at the end of a row). The token that ends a row is given too.

    Raises:
      ConfigError: a prompt is empty, or `max_new_tokens` less than 1.
      ContextTooLong: the model has no positions for so many tokens.
    """
    if max_new_tokens < 1 or chunk < 1:
        raise ConfigError(f"max_new_tokens: {max_new_tokens} must be at least 1")
    tokens, pads = padded(prompts, _bucket(model, prompts, max_new_tokens))
    capacity = tokens.shape[1] + max_new_tokens
    progress = prefill(model, tokens, pads, _rounded(model, capacity))
    key = named(jax.random.key(seed), "generate")
    limit = jnp.int32(max_new_tokens)
    given = 0
    while given < max_new_tokens and not bool(progress.done_B.all()):
        progress, drawn = advance(model, progress, key, limit, sampling, tuple(stop), chunk)
        given += chunk
        yield [[token for token in row if token >= 0] for row in np.asarray(drawn).tolist()]


def _bucket(model: Model, prompts: Sequence[Sequence[int]], new: int) -> int:
    """To what prompts are padded: nothing where the model's positions would not suffice."""
    longest = max(map(len, prompts), default=0)
    limit = model.max_length
    return BUCKET if limit is None or -(-longest // BUCKET) * BUCKET + new <= limit else 1


def _rounded(model: Model, capacity: int) -> int:
    """A capacity that other lengths share."""
    rounded = -(-capacity // BUCKET) * BUCKET
    return rounded if model.max_length is None or rounded <= model.max_length else capacity


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    *,
    stop: Sequence[int] = (),
    seed: int = 0,
    chunk: int = CHUNK,
) -> list[list[int]]:
    """The new tokens of every prompt, as `stream` gives them; greedy without a `sampling`."""
    found: list[list[int]] = [[] for _ in prompts]
    how = Sampling(temperature=0.0) if sampling is None else sampling
    for parts in stream(model, prompts, max_new_tokens, how, stop=stop, seed=seed, chunk=chunk):
        for row, part in zip(found, parts, strict=True):
            row.extend(part)
    return found
