import dataclasses

import jax
import numpy as np
import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.upcycle import upcycle
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.params import flatten
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig

TOKENS = np.random.default_rng(0).integers(0, 40, (2, 9))
DENSE = DecoderConfig(vocab_size=40, train_length=16, num_layers=3, num_heads=2, width=16, bias=True, layers="scan")
MIXTURE = MixtureConfig(experts=4)


@pytest.mark.parametrize("feedforward", [DenseConfig(), GatedConfig(multiplier=2.0)], ids=["dense", "gated"])
def test_the_new_model_computes_what_the_old_one_does(feedforward):
    config = dataclasses.replace(DENSE, feedforward=feedforward)
    model = jax.jit(config.make)(jax.random.key(0))
    new, wanted = upcycle(model, config, MIXTURE, jax.random.key(1))
    assert isinstance(wanted.feedforward, MixtureConfig)
    assert wanted.feedforward.expert.hidden == feedforward.hidden_of(16)
    assert jax.tree.structure(new) == jax.tree.structure(jax.eval_shape(wanted.make, jax.random.key(0)))
    np.testing.assert_allclose(new(TOKENS).logits, model(TOKENS).logits, rtol=1e-4, atol=1e-4)
    assert not np.allclose(flatten(new)["blocks/feedforward/router/weight"], 0)


def test_weights_that_do_not_sum_to_one_change_it():
    model = jax.jit(DENSE.make)(jax.random.key(0))
    halves = dataclasses.replace(MIXTURE, router=SoftmaxRouterConfig(normalise=False))
    new, _ = upcycle(model, DENSE, halves, jax.random.key(1))
    assert not np.allclose(new(TOKENS).logits, model(TOKENS).logits, atol=1e-3)


def test_noise_tells_experts_apart():
    model = jax.jit(DENSE.make)(jax.random.key(0))
    new, _ = upcycle(model, DENSE, MIXTURE, jax.random.key(1), noise=0.1)
    up, old = flatten(new)["blocks/feedforward/experts/up"], flatten(model)["blocks/feedforward/up"]
    difference = np.asarray(up - old[:, None])
    assert abs(difference.std() / np.asarray(old).std() - 0.1) < 0.01
    assert not np.allclose(difference[:, 0], difference[:, 1])


@pytest.mark.parametrize(
    ("config", "mixture", "message"),
    [
        (dataclasses.replace(DENSE, feedforward=MIXTURE), MIXTURE, "must be one dense or gated layer"),
        (DENSE, dataclasses.replace(MIXTURE, shared=DenseConfig()), "shared has nothing to start from"),
    ],
)
def test_what_cannot_be_upcycled(config, mixture, message):
    with pytest.raises(ConfigError, match=message):
        upcycle(None, config, mixture, jax.random.key(0))
