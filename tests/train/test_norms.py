"""Norms of all parameters, and of each by layer."""

import jax
import numpy as np

from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.params import flatten
from jaxgpt.nn.router.sigmoid import SigmoidRouterConfig
from jaxgpt.train.norms import global_norm, norms_by_layer, parameters

CONFIG = DecoderConfig(
    vocab_size=32,
    train_length=8,
    num_layers=3,
    num_heads=2,
    width=16,
    feedforward=MixtureConfig(experts=4, router=SigmoidRouterConfig()),
)


def test_norms_are_of_what_is_trained_layer_by_layer():
    model = jax.jit(CONFIG.make)(jax.random.key(0))
    arrays, norms = parameters(model), norms_by_layer(model)
    assert set(norms) == set(arrays)
    assert set(flatten(model)) - set(arrays) == {"blocks/feedforward/router/correction"}, "balanced, not trained"
    for path, norm in norms.items():
        array = np.asarray(arrays[path], np.float64)
        layers = [*array] if path.startswith("blocks/") else [array]
        wanted = [np.linalg.norm(layer.ravel()) for layer in layers]
        assert norm.shape == ((3,) if path.startswith("blocks/") else ())
        np.testing.assert_allclose(np.atleast_1d(norm), wanted, rtol=1e-6)
    together = np.sqrt(sum((np.asarray(norm) ** 2).sum() for norm in norms.values()))
    np.testing.assert_allclose(global_norm(model), together, rtol=1e-6)
