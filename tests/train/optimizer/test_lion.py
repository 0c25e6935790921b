"""Lion against its algorithm in numpy."""

import numpy as np

from jaxgpt.train.optimizer.lion import LionConfig


def test_it_is_its_algorithm(parameters, gradients, rates, optimize):
    """Algorithm 2 of arXiv:2302.06675; the gain does not decay."""
    found, _ = optimize(LionConfig(beta1=0.8, beta2=0.9, weight_decay=0.5).make)
    for name, decay in (("matrix", 0.5), ("gain", 0.0)):
        x, m = np.asarray(parameters()[name][...], np.float64), 0.0
        for rate, gradient in zip(rates, gradients(), strict=True):
            g = gradient[name]
            x = x - rate * (np.sign(0.8 * m + 0.2 * g) + decay * x)
            m = 0.9 * m + 0.1 * g
        np.testing.assert_allclose(found[name][...], x, rtol=1e-4, atol=1e-5)
