"""Decoding with a cache equals the full pass, and packed documents equal separate ones, for every kind of attention
with every kind of encoding and every router that is causal, all three together (`pytest -m slow`)."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxgpt import registry
from jaxgpt.config import FrozenMapping
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.mixer.base import MixerConfig
from jaxgpt.nn.position.base import PositionConfig, Positions
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.router.base import RouterConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
B, T, V = 2, 10, 40
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
MIXERS = {
    f"{kind}-{number}": config
    for kind, found in registry.kinds(MixerConfig).items()
    for number, config in enumerate(found.examples())
}
ENCODINGS = {kind: found.examples()[0] for kind, found in registry.kinds(PositionConfig).items()}
ROUTERS = {kind: found() for kind, found in registry.kinds(RouterConfig).items() if kind != "expert_choice"}
BASE = DecoderConfig(
    vocab_size=V, train_length=T, num_layers=2, num_heads=4, num_kv_heads=2, width=32, layers="scan", init_std=0.25
)
LOCAL = dataclasses.replace(BASE, pattern=("local", "global"), window=FrozenMapping({"local": 3, "global": None}))


FEEDFORWARDS = {
    "dense": DenseConfig(hidden=16),
    **{kind: MixtureConfig(experts=4, expert=DenseConfig(hidden=16), router=found) for kind, found in ROUTERS.items()},
}
EVERY = dataclasses.replace(  # a layer of each kind
    BASE, num_layers=len(FEEDFORWARDS), pattern=tuple(FEEDFORWARDS), feedforward=FrozenMapping(FEEDFORWARDS)
)


def configs():
    """Every kind of mixer with every encoding and, layer by layer, every kind of feed-forward layer; every example of a
    mixer with windows."""
    for mixer, config in MIXERS.items():
        yield f"{mixer}, windows", dataclasses.replace(LOCAL, mixer=config, position=RopeConfig())
        if not mixer.endswith("-0"):  # further examples of a kind
            continue
        for name, position in ENCODINGS.items():
            yield f"{mixer}, {name}", dataclasses.replace(EVERY, mixer=config, position=position)


@jax.jit
def run(model, tokens, positions=None, cache=None):
    return model(tokens, positions, cache)


@pytest.mark.parametrize("config", [pytest.param(config, id=name) for name, config in configs()])
def test_decoding_and_packing(config):
    model = jax.jit(config.make)(jax.random.key(0))
    whole = run(model, TOKENS).logits
    cache, parts = model.init_cache(B, T), []
    for begin, end in ((0, 6), *((t, t + 1) for t in range(6, T))):
        out = run(model, TOKENS[:, begin:end], None, cache)
        cache = out.cache
        parts.append(out.logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-3, atol=1e-3)
    segment = np.repeat([[1, 2]], T // 2, axis=-1).repeat(B, axis=0)
    packed = run(model, TOKENS, Positions.packed(jax.numpy.asarray(segment))).logits
    apart = np.concatenate([run(model, TOKENS[:, cut]).logits for cut in (slice(0, T // 2), slice(T // 2, T))], axis=1)
    np.testing.assert_allclose(packed, apart, rtol=1e-3, atol=1e-3)
