"""AdamW against its algorithm in numpy, and against the one of optax."""

import jax
import numpy as np
import optax
from flax import nnx

from jaxgpt.train.optimizer.adamw import AdamWConfig


def test_it_is_its_algorithm(parameters, gradients, rates, optimize):
    """Algorithm 2 of arXiv:1711.05101, three steps; the gain does not decay."""
    found, _ = optimize(AdamWConfig(beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.5).make)
    for name, decay in (("matrix", 0.5), ("gain", 0.0)):
        x, m, v = np.asarray(parameters()[name][...], np.float64), 0.0, 0.0
        for step, gradient in enumerate(gradients(), start=1):
            g = gradient[name]
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
            moved = m / (1 - 0.8**step) / (np.sqrt(v / (1 - 0.9**step)) + 1e-3)
            x = x - rates[step - 1] * (moved + decay * x)
        np.testing.assert_allclose(found[name][...], x, rtol=1e-4, atol=1e-5)


def test_it_is_that_of_optax(parameters, optimize):
    mask = nnx.Dict({"matrix": nnx.Param(True), "gain": nnx.Param(False)})
    mask = jax.tree.unflatten(jax.tree.structure(parameters()), [bool(leaf) for leaf in jax.tree.leaves(mask)])
    one, _ = optimize(AdamWConfig().make)
    other, _ = optimize(lambda rate: optax.adamw(rate, 0.9, 0.95, 1e-8, weight_decay=0.1, mask=mask))
    for name in ("matrix", "gain"):
        np.testing.assert_array_equal(one[name][...], other[name][...])
