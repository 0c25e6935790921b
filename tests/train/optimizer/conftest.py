"""A matrix and a gain, gradients for them, and a model of many shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.params import constant, normal

RATES = [0.1, 0.05, 0.2]


@pytest.fixture(scope="session")
def parameters():
    def make(shape=(3, 4)):
        matrix = normal(jax.random.key(0), "matrix", shape, ("embed", "hidden"), 1.0)
        return nnx.Dict({"matrix": matrix, "gain": constant(1.0, shape[-1:], (None,))})

    return make


@pytest.fixture(scope="session")
def gradients(parameters):
    """Three, as numbers of 64 bits, by name."""

    def make(shape=(3, 4)):
        draw = np.random.default_rng(0)
        return [{n: draw.normal(size=p[...].shape) for n, p in parameters(shape).items()} for _ in RATES]

    return make


@pytest.fixture(scope="session")
def rates():
    return RATES


@pytest.fixture(scope="session")
def optimize(parameters, gradients):
    """`optimize(transformation_of(schedule), shape)`: (parameters, state) after the three steps."""

    def run(make, shape=(3, 4)):
        transformation = make(lambda step: jnp.asarray(RATES)[step])
        state, model = transformation.init(parameters(shape)), parameters(shape)
        for gradient in gradients(shape):
            as_model = nnx.Dict({n: model[n].replace(jnp.float32(g)) for n, g in gradient.items()})
            updates, state = transformation.update(as_model, state, model)
            model = optax.apply_updates(model, updates)
        return model, state

    return run


@pytest.fixture(scope="session")
def model():
    sizes = {"vocab_size": 16, "train_length": 8, "num_layers": 2, "num_heads": 2, "width": 16}
    config = DecoderConfig(**sizes, bias=True, feedforward=MixtureConfig(), tie_embeddings=False)
    return jax.jit(config.make)(jax.random.key(0))
