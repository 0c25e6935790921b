from __future__ import annotations

import dataclasses

import jax
import pytest

from jaxgpt.config import FrozenMapping
from jaxgpt.models.decoder import DecoderConfig

V = 23
SMALL = DecoderConfig(vocab_size=V, train_length=16, num_layers=2, num_heads=2, width=16, layers="scan", init_std=0.5)
WINDOWS = dataclasses.replace(
    SMALL, pattern=("local", "global"), window=FrozenMapping({"local": 3, "global": None}), num_kv_heads=1
)


@pytest.fixture(scope="session")
def make():
    """`make(config, seed)`: a model whose logits are far from even."""
    made = {}

    def of(config=SMALL, seed=0):
        if (config, seed) not in made:
            made[config, seed] = jax.jit(config.make)(jax.random.key(seed))
        return made[config, seed]

    return of
