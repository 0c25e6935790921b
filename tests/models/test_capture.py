"""What layers give out when asked: the numbers that the output is made of."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt import registry
from jaxgpt.config import FrozenMapping
from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.mixer.base import CAPTURES, MixerConfig
from jaxgpt.nn.position.alibi import AlibiConfig

B, T, V, L, E = 2, 7, 30, 3, 4
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
BASE = DecoderConfig(vocab_size=V, train_length=8, num_layers=L, num_heads=4, num_kv_heads=2, width=16, layers="scan")
MIXED = dataclasses.replace(
    BASE,
    init_std=0.3,
    position=AlibiConfig(),
    first_layers=("dense",),
    pattern=("experts",),
    feedforward=FrozenMapping({"dense": DenseConfig(), "experts": MixtureConfig(E, DenseConfig(hidden=8))}),
)


@functools.partial(jax.jit, static_argnames="capture")
def run(model, capture=()):
    return model(TOKENS, capture=capture)


@functools.cache
def make(config):
    return jax.jit(config.make)(jax.random.key(0))


def test_nothing_is_given_out_unasked_and_asking_changes_no_logit():
    plain, asked = run(make(MIXED)), run(make(MIXED), tuple(CAPTURES))
    assert not set(plain.aux) & set(CAPTURES)
    assert set(asked.aux) >= set(CAPTURES)
    np.testing.assert_allclose(asked.logits, plain.logits, rtol=1e-5, atol=1e-5)


def test_shapes_are_those_that_are_told():
    aux = run(make(MIXED), tuple(CAPTURES)).aux
    assert aux["attention"].shape == (L, B, 4, T, T)
    assert aux["router"].shape == (L - 1, B, T, E), "of the layers that have one"
    for name in ("mixer", "feedforward", "residual"):
        assert aux[name].shape == (L, B, T, 16)


def test_the_stream_is_the_sum_of_what_layers_write():
    model = make(MIXED)
    aux = run(model, ("mixer", "feedforward", "residual")).aux
    x = model.embedding[...][TOKENS]
    for layer in range(L):
        x = x + aux["mixer"][layer] + aux["feedforward"][layer]
        np.testing.assert_allclose(aux["residual"][layer], x, rtol=1e-4, atol=1e-5)
    logits = model.head().logits(model.final_norm(aux["residual"][-1]).reshape(B * T, -1)).reshape(B, T, V)
    np.testing.assert_allclose(run(model).logits, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", registry.kinds(MixerConfig))
def test_attention_maps_are_causal_shares(kind):
    """Of every kind of attention; a sink takes what is missing to 1."""
    config = registry.kinds(MixerConfig)[kind].examples()[0]
    maps = np.asarray(run(make(dataclasses.replace(BASE, mixer=config)), ("attention",)).aux["attention"])
    assert maps.shape == (L, B, 4, T, T)
    np.testing.assert_allclose(maps.sum(-1), 1.0, rtol=1e-4)
    assert not np.triu(maps, 1).any()
    assert (maps >= 0).all()


def test_values_summed_by_the_map_are_the_output():
    model = make(dataclasses.replace(BASE, num_layers=1, num_kv_heads=4, init_std=0.3))
    aux = run(model, ("attention", "mixer")).aux
    block = jax.tree.map(lambda leaf: leaf[0], model.blocks)
    x = block.mixer_norm(model.embedding[...][TOKENS])
    values = jnp.einsum("btd,dnh->btnh", x, block.mixer.value[...])
    mixed = jnp.einsum("bnts,bsnh,nhd->btd", aux["attention"][0], values, block.mixer.output[...])
    np.testing.assert_allclose(aux["mixer"][0], mixed, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_captured_is_named():
    with pytest.raises(ConfigError, match="capture: there is no 'atention'; did you mean 'attention'"):
        run(make(BASE), ("atention",))
