"""Muon against singular values and Newton-Schulz in numpy, and what it takes for a matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt import registry
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.mup import Growth
from jaxgpt.nn.mixer.base import MixerConfig
from jaxgpt.nn.params import flatten
from jaxgpt.nn.position.absolute import LearnedConfig
from jaxgpt.train.optimizer.adamw import AdamWConfig
from jaxgpt.train.optimizer.base import per_parameter
from jaxgpt.train.optimizer.muon import MuonConfig, matrix

A, B, C = 3.4445, -4.7750, 2.0315


def orthogonal(x, steps=5):
    """The iteration of the authors' code."""
    x, turned = (x.T, True) if x.shape[0] > x.shape[1] else (x, False)
    x = x / np.linalg.norm(x)
    for _ in range(steps):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.T if turned else x


@pytest.mark.parametrize("shape", [(3, 4), (6, 4)])
def test_it_is_its_algorithm(parameters, gradients, rates, optimize, shape):
    """With Nesterov's momentum, corrected for its start; the gain moves as AdamW moves it."""
    config = MuonConfig(beta=0.8, weight_decay=0.5, adamw=AdamWConfig(beta1=0.7))
    found, _ = optimize(config.make, shape)
    x, m = np.asarray(parameters(shape)["matrix"][...], np.float64), 0.0
    for step, (rate, gradient) in enumerate(zip(rates, gradients(shape), strict=True), start=1):
        g = gradient["matrix"]
        m = 0.8 * m + 0.2 * g
        ahead = 0.8 * m / (1 - 0.8 ** (step + 1)) + 0.2 * g / (1 - 0.8**step)
        x = x - rate * (0.2 * np.sqrt(max(shape)) * orthogonal(ahead) + 0.5 * x)
    np.testing.assert_allclose(found["matrix"][...], x, rtol=1e-3, atol=1e-4)
    other, _ = optimize(config.adamw.make, shape)
    np.testing.assert_allclose(found["gain"][...], other["gain"][...], rtol=1e-6)


def model_of(**changes):
    sizes = {"vocab_size": 32, "train_length": 8, "num_layers": 3, "num_heads": 2, "width": 16, "tie_embeddings": False}
    return DecoderConfig(**sizes | changes)


def test_every_layers_matrix_is_orthogonal_with_heads_together():
    """Root mean square 0.2, and singular values all about the same, in each layer by itself."""
    model = jax.jit(model_of().make)(jax.random.key(0))
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), model)
    transformation = MuonConfig(steps=12, weight_decay=0.0).make(lambda step: 1.0)
    updates, _ = jax.jit(transformation.update)(gradients, transformation.init(model), model)
    flat = flatten(updates)
    for name, inputs in (("mixer/query", 16), ("mixer/output", 16), ("feedforward/up", 16), ("feedforward/down", 64)):
        for layer in np.asarray(flat[f"blocks/{name}"], np.float64):
            two_dimensional = layer.reshape(inputs, -1)
            assert 0.15 < np.sqrt(np.mean(two_dimensional**2)) < 0.25
            values = np.linalg.svd(two_dimensional, compute_uv=False)
            assert values.min() > 0.5 * values.max()


@pytest.mark.parametrize("kind", sorted(registry.kinds(MixerConfig)))
def test_which_parameters_are_matrices(kind):
    """All with a side of inputs and one of outputs, in mixers of every kind; no tables, head, gains or biases."""
    config = model_of(mixer=registry.kinds(MixerConfig)[kind](), position=LearnedConfig(), bias=True)
    model = jax.eval_shape(config.make, jax.random.key(0))
    found = {}
    per_parameter(model, lambda path, leaf: found.setdefault(path, (leaf, matrix(path, leaf))))
    for path, (leaf, dimensions) in found.items():
        name = path.rpartition("/")[2]
        if name in ("embedding", "head_matrix", "table", "scale", "bias") or "bias" in name or "lambda" in name:
            assert dimensions is None, path
        if dimensions is not None:
            sides = dimensions.reduction_axis + dimensions.output_axis
            assert sorted(sides) == list(range(-len(sides), 0))
            assert leaf.get_raw_value().ndim - len(sides) == 1  # the layers of a stack
    for name in ("feedforward/up", "feedforward/down", "mixer/output"):
        assert found[f"blocks/{name}"][1] is not None


@pytest.mark.parametrize(
    ("growth", "factor"),
    [
        (Growth(64, 64, 16, 16), 0.5),
        (Growth(64, 256, 16, 64), 0.5),
        (Growth(256, 64, 64, 16), 0.5),
        (Growth(64, 4, 16, 4), 0.25),
        (Growth(8, 64, 8, 16), 1.0),
    ],
)
def test_under_mup_updates_grow_with_the_root_of_outputs_over_inputs(growth, factor):
    """Their largest singular value, that of an orthogonal matrix scaled as the optimizer scales it."""
    assert MuonConfig().width_factor(growth) == pytest.approx(factor)

    def relative(inputs, outputs):
        return np.sqrt(max(inputs, outputs)) / np.sqrt(outputs / inputs)

    assert factor * relative(*growth[:2]) == pytest.approx(relative(*growth[2:]))


def test_numbers_that_are_no_model_are_moved_by_adamw():
    assert matrix("x", jnp.zeros((3, 4))) is None
