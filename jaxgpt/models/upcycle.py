"""A dense model made into a mixture of experts: every expert starts as a copy of the feed-forward layer it replaces."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import Decoder, DecoderConfig
from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.params import flatten, named, unflatten


def upcycle(
    model: Decoder, config: DecoderConfig, mixture: MixtureConfig, key: Array, noise: float = 0.0
) -> tuple[Decoder, DecoderConfig]:
    """`model` with `mixture` in place of its dense feed-forward layers, and the configuration of that (Komatsuzaki et
    al. 2022, sparse upcycling, arXiv:2212.05055, section 3).

    mixture: its `expert` is taken from the dense layers, whatever it says.
    key: for the router, which is drawn anew.
    noise: standard deviation of what is added to each expert's parameters, as a share of their own: copies that are
        exactly alike learn apart only by the tokens they get.

    Where the weights of a token's experts sum to 1 (a normalised router, scale 1) and there is no noise, the new model
    computes what the old one does. Raises ConfigError unless all layers have one dense or gated feed-forward layer.
    """
    dense = config.feedforward
    if not isinstance(dense, FeedForwardConfig) or isinstance(dense, MixtureConfig):
        raise ConfigError("upcycle: model.feedforward must be one dense or gated layer for all layers")
    if mixture.shared is not None:
        raise ConfigError("upcycle: feedforward.shared has nothing to start from; leave it out")
    wanted = dataclasses.replace(
        config, feedforward=dataclasses.replace(mixture, expert=dense.with_hidden(dense.hidden_of(config.width)))
    )
    fresh = wanted.make(named(key, "upcycle"))
    old, new = flatten(model), flatten(fresh)
    made: dict[str, Any] = {}
    for path, drawn in new.items():
        source = path.replace("/feedforward/experts/", "/feedforward/")
        if path in old:
            made[path] = old[path]
        elif source in old:
            made[path] = _copies(old[source], mixture.experts, named(key, path), noise)
        else:
            made[path] = drawn.astype(old["embedding"].dtype)
    return unflatten(fresh, made), wanted


def _copies(array: Array, experts: int, key: Array, noise: float) -> Array:
    """[layers, ...] as [layers, experts, ...]."""
    copies = jnp.broadcast_to(array[:, None], (array.shape[0], experts, *array.shape[1:]))
    if noise == 0.0:
        return copies
    return copies + noise * array.std() * jax.random.normal(key, copies.shape, array.dtype)
