"""Schedule-free AdamW against its algorithm in numpy."""

import numpy as np

from jaxgpt.train.optimizer.schedule_free import ScheduleFreeConfig


def test_it_is_its_algorithm(parameters, gradients, rates, optimize):
    """Algorithm 1 of arXiv:2405.15682: y between z and the average x, whose weights are the largest rates squared."""
    config = ScheduleFreeConfig(beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.5)
    found, state = optimize(config.make)
    average = config.average(state, found)
    for name, decay in (("matrix", 0.5), ("gain", 0.0)):
        x = z = y = np.asarray(parameters()[name][...], np.float64)
        v = total = largest = 0.0
        for step, (rate, gradient) in enumerate(zip(rates, gradients(), strict=True), start=1):
            g = gradient[name]
            v = 0.9 * v + 0.1 * g * g
            z = z - rate * (g / (np.sqrt(v / (1 - 0.9**step)) + 1e-3) + decay * y)
            largest = max(largest, rate)
            total += largest**2
            x = x + largest**2 / total * (z - x)
            y = 0.8 * x + 0.2 * z
        np.testing.assert_allclose(found[name][...], y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(average[name][...], x, rtol=1e-4, atol=1e-5)
