import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxgpt import registry
from jaxgpt.config import decode, encode
from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.params import constant, normal
from jaxgpt.nn.position.t5 import T5Config
from jaxgpt.train.optimizer import AdamWConfig, OptimizerConfig, decay_mask

KINDS = registry.kinds(OptimizerConfig)
RATES = [0.1, 0.05, 0.2]


def parameters():
    return nnx.Dict(
        {
            "matrix": normal(jax.random.key(0), "matrix", (3, 4), (None, None), 1.0),
            "gain": constant(1.0, (4,), (None,)),
        }
    )


def gradients():
    return [
        jax.tree.map(lambda p, s=seed: jnp.sin(s + jnp.arange(float(p.size))).reshape(p.shape), parameters())
        for seed in range(3)
    ]


def optimize(transformation):
    state, model = transformation.init(parameters()), parameters()
    for gradient in gradients():
        updates, state = transformation.update(gradient, state, model)
        model = optax.apply_updates(model, updates)
    return np.asarray(model["matrix"][...]), np.asarray(model["gain"][...])


def rate(step):
    return jnp.asarray(RATES)[step]


def test_adamw_is_its_algorithm():
    """Algorithm 2 of arXiv:1711.05101 in numpy, three steps; the gain does not decay."""
    config = AdamWConfig(beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.5)
    found = optimize(config.make(rate))
    for name, y, decay in zip(("matrix", "gain"), found, (0.5, 0.0), strict=True):
        x, m, v = np.asarray(parameters()[name][...], np.float64), 0.0, 0.0
        for step, gradient in enumerate(gradients(), start=1):
            g = np.asarray(gradient[name][...], np.float64)
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
            moved = m / (1 - 0.8**step) / (np.sqrt(v / (1 - 0.9**step)) + 1e-3)
            x = x - RATES[step - 1] * (moved + decay * x)
        np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5)


def test_adamw_is_that_of_optax():
    mask = nnx.Dict({"matrix": nnx.Param(True), "gain": nnx.Param(False)})
    mask = jax.tree.unflatten(jax.tree.structure(parameters()), [bool(leaf) for leaf in jax.tree.leaves(mask)])
    for one, other in zip(
        optimize(AdamWConfig().make(rate)),
        optimize(optax.adamw(rate, 0.9, 0.95, 1e-8, weight_decay=0.1, mask=mask)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_only_matrices_decay():
    config = DecoderConfig(
        vocab_size=8, train_length=4, num_heads=2, width=8, bias=True, position=T5Config(), tie_embeddings=False
    )
    model = jax.eval_shape(config.make, jax.random.key(0))
    mask = nnx.to_flat_state(nnx.state(decay_mask(model), nnx.Param))
    decaying = {"/".join(map(str, path)) for path, leaf in mask if leaf.get_raw_value() is True}
    still = {"/".join(map(str, path)) for path, leaf in mask if leaf.get_raw_value() is False}
    assert len(decaying) + len(still) == len(jax.tree.leaves(model))
    matrices = {f"blocks/mixer/{name}" for name in ("query", "key", "value", "output")}
    matrices |= {"blocks/feedforward/up", "blocks/feedforward/down", "embedding", "head_matrix"}
    assert matrices <= decaying
    assert all("bias" in path or "scale" in path for path in still - {"position/table"})
    assert not any("bias" in path.rpartition("/")[2] or "norm" in path for path in decaying)


def test_what_is_no_parameter_does_not_decay():
    assert decay_mask({"counter": jnp.zeros(2)}) == {"counter": False}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_moves_against_the_gradient_and_names_its_paper(kind):
    assert re.search(r"arXiv:\d{4}\.\d{5}", KINDS[kind].__doc__)
    config = KINDS[kind]()
    assert decode(OptimizerConfig, encode(config)) == config
    transformation, model = config.make(lambda step: 0.1), parameters()

    @jax.jit
    def step(model, state):
        updates, state = transformation.update(jax.grad(size)(model), state, model)
        return optax.apply_updates(model, updates), state

    def size(model):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(model))

    state, before = transformation.init(model), float(size(model))
    for _ in range(5):
        model, state = step(model, state)
    assert float(size(model)) < before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta1": 1.0}, r"optimizer: beta1 must be at least 0 and below 1, got 1\.0"),
        ({"beta2": -0.1}, "optimizer: beta2 must be at least 0"),
        ({"epsilon": 0}, "optimizer: epsilon must be positive and weight_decay not negative"),
        ({"weight_decay": -1}, "optimizer: epsilon must be positive and weight_decay not negative"),
        ({"weight_deacy": 1}, "optimizer.weight_deacy: no such key; did you mean 'weight_decay'"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        decode(OptimizerConfig, {"type": "adamw", **wrong}, "optimizer")


def test_a_kind_that_lacks_a_method_says_so():
    with pytest.raises(TypeError, match=r"OptimizerConfig must define make\(\)"):
        OptimizerConfig().make(rate)
