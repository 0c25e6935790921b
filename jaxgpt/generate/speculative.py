"""Speculative decoding: a small model proposes, the large one checks, and the distribution stays the large one's.

Leviathan et al. 2022 (arXiv:2211.17192, algorithm 1). Shapes: G proposals of a round, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.generate.filters import Sampling
from jaxgpt.models.base import Cache, Model
from jaxgpt.nn.attention.cache import LayerCache
from jaxgpt.nn.params import named


class Speculated(NamedTuple):
    """New tokens, and how many proposals were made and accepted for them."""

    tokens: list[int]
    proposed: int
    accepted: int


def speculate(
    model: Model,
    draft: Model,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    *,
    proposals: int = 4,
    stop: Sequence[int] = (),
    seed: int = 0,
) -> Speculated:
    """The continuation of one prompt by `model`, with `proposals` tokens of `draft` checked at a time. Tokens are drawn
    from the same distribution as without a draft; greedily they are the same tokens.

    Raises ConfigError where the models have other vocabularies, or `sampling` looks at the history.
    """
    sampling = Sampling(temperature=0.0) if sampling is None else sampling
    _check(model, draft, prompt, max_new_tokens, proposals, sampling)
    capacity = len(prompt) + max_new_tokens + proposals + 1
    context = jnp.asarray(list(prompt), jnp.int32)[None]
    key = named(jax.random.key(seed), "speculate")
    target, logits = _read(model, context, capacity)
    own, _ = _read(draft, context, capacity)
    first = int(_draw(logits, sampling, jax.random.fold_in(key, 0)))
    found, proposed, accepted, number = [first], 0, 0, 0
    while len(found) < max_new_tokens and found[-1] not in stop:
        number += 1
        round_key = jax.random.fold_in(key, number)
        last = jnp.full((1, 1), found[-1], jnp.int32)
        target, own, tokens, count = _round(model, draft, target, own, last, round_key, sampling, proposals)
        new = np.asarray(tokens)[: int(count) + 1].tolist()
        proposed += proposals
        accepted += int(count)
        for token in new:
            found.append(token)
            if token in stop or len(found) == max_new_tokens:
                break
    return Speculated(found, proposed, accepted)


def _check(model, draft, prompt, max_new_tokens, proposals, sampling) -> None:
    if len(prompt) == 0:
        raise ConfigError("prompt: at least one token is needed to go on from")
    if max_new_tokens < 1 or proposals < 1:
        raise ConfigError("max_new_tokens and proposals must be at least 1")
    if sampling.repetition_penalty is not None or sampling.no_repeat_ngram:
        raise ConfigError(
            "sampling: repetition_penalty and no_repeat_ngram look at tokens that are not there yet when a draft "
            "proposes; leave them or the draft out"
        )
    sizes = [one.head().matrix_DV.shape[1] for one in (model, draft)]
    if sizes[0] != sizes[1]:
        raise ConfigError(f"draft: has a vocabulary of {sizes[1]} tokens, the model one of {sizes[0]}; they must agree")


@functools.partial(jax.jit, static_argnames=("capacity",))
def _read(model: Model, tokens: Array, capacity: int) -> tuple[Cache, Array]:
    """The prompt in a cache whose tokens can be taken back, and logits [V] of the next token."""
    out = model(tokens, cache=model.init_cache(1, capacity, rings=False), logits_from=tokens.shape[1] - 1)
    assert out.cache is not None
    return out.cache, out.logits[0, -1]


def _chances(logits: Array, sampling: Sampling) -> Array:
    """[..., V]: the probabilities that tokens are drawn with."""
    if sampling.greedy:
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    flat = logits.reshape(-1, logits.shape[-1]).astype(jnp.float32)
    none = jnp.zeros((len(flat), 0), jnp.int32)
    return jax.nn.softmax(sampling.logits(flat, none, none.astype(bool)), axis=-1).reshape(logits.shape)


@functools.partial(jax.jit, static_argnames=("sampling",))
def _draw(logits: Array, sampling: Sampling, key: Array) -> Array:
    return _pick(_chances(logits, sampling), key)


def _pick(chances: Array, key: Array) -> Array:
    return jax.random.categorical(key, jnp.log(chances)).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("sampling", "proposals"), donate_argnames=("target", "own"))
def _round(
    model: Model, draft: Model, target: Cache, own: Cache, last: Array, key: Array, sampling: Sampling, proposals: int
) -> tuple[Cache, Cache, Array, Array]:
    """One round: both caches as far as the tokens that stay, the tokens [G + 1] and how many proposals were accepted;
    the token behind these is the large model's own, and what follows it means nothing."""
    begin = target.at

    def propose(carry, number):
        cache, token = carry
        out = draft(token, cache=cache)
        assert out.cache is not None
        chances_V = _chances(out.logits[0, -1], sampling)
        drawn = _pick(chances_V, jax.random.fold_in(key, number))
        return (out.cache, drawn[None, None]), (drawn, chances_V)

    # One more than proposed: the last proposal must be in the draft's cache if all are accepted.
    (own, _), (drawn, q_GV) = jax.lax.scan(propose, (own, last), jnp.arange(proposals + 1))
    drawn, q_GV = drawn[:proposals], q_GV[:proposals]
    out = model(jnp.concatenate([last[0], drawn])[None], cache=target)
    assert out.cache is not None
    p_GV = _chances(out.logits[0], sampling)  # [G + 1, V]
    rows = jnp.arange(proposals)
    luck = jax.random.uniform(jax.random.fold_in(key, proposals + 1), (proposals,))
    accepted = luck * q_GV[rows, drawn] < p_GV[rows, drawn]
    count = jnp.cumprod(accepted.astype(jnp.int32)).sum()
    # What the draft gave too little of; behind the last proposal, all of the model's own distribution.
    lacking_GV = jnp.maximum(p_GV - jnp.concatenate([q_GV, jnp.zeros_like(q_GV[:1])]), 0.0)
    own_token = _pick(lacking_GV[count], jax.random.fold_in(key, proposals + 2))
    tokens = jnp.where(jnp.arange(proposals + 1) < count, jnp.append(drawn, 0), own_token)
    at = begin + count + 1
    return _taken_back(out.cache, at), _taken_back(own, at), tokens, count


def _taken_back(cache: Cache, at: Array) -> Cache:
    """A cache without the tokens from number `at` on."""
    layers = jax.tree.map(lambda layer: layer.until(at), cache.layers, is_leaf=lambda x: isinstance(x, LayerCache))
    return dataclasses.replace(cache, layers=layers, at=at)
