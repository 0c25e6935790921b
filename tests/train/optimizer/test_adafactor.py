"""Adafactor against its algorithm in numpy."""

import jax
import numpy as np
import pytest

from jaxgpt.models.mup import Growth
from jaxgpt.nn.params import flatten
from jaxgpt.train.optimizer.adafactor import AdafactorConfig


def mean_square(x):
    return np.mean(x * x)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("factored", [True, False])
def test_it_is_its_algorithm(parameters, gradients, rates, optimize, relative, factored):
    """Algorithm 4 of arXiv:1804.04235 without a momentum, three steps, with AdamW's weight decay."""
    config = AdafactorConfig(relative=relative, factored_from=2 if factored else 100, weight_decay=0.5)
    found, _ = optimize(config.make)
    x, rows, columns, whole = np.asarray(parameters()["matrix"][...], np.float64), 0.0, 0.0, 0.0
    for step, (rate, gradient) in enumerate(zip(rates, gradients(), strict=True), start=1):
        square, decay = gradient["matrix"] ** 2 + 1e-30, 1 - step**-0.8
        rows = decay * rows + (1 - decay) * square.mean(axis=1)
        columns = decay * columns + (1 - decay) * square.mean(axis=0)
        whole = decay * whole + (1 - decay) * square
        update = gradient["matrix"] / np.sqrt(np.outer(rows, columns) / rows.mean() if factored else whole)
        update = update / max(1.0, np.sqrt(mean_square(update)))
        update = update * (max(1e-3, np.sqrt(mean_square(x))) if relative else 1.0)
        x = x - rate * (update + 0.5 * x)
    np.testing.assert_allclose(found["matrix"][...], x, rtol=1e-4, atol=1e-5)


def test_relative_updates_have_the_deviation_that_mup_draws_with_in_them():
    both, inputs, outputs = Growth(64, 64, 16, 16), Growth(64, 3, 16, 3), Growth(16, 64, 16, 16)
    assert [AdafactorConfig().width_factor(one) for one in (both, inputs, outputs)] == [0.25, 0.25, 1.0]
    assert [AdafactorConfig(relative=True).width_factor(one) for one in (both, inputs, outputs)] == [0.5, 1.0, 1.0]


def test_its_state_is_small(model):
    state = jax.eval_shape(AdafactorConfig(factored_from=8).make(lambda step: 0.1).init, model)
    size = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert sum(leaf.size for leaf in flatten(state).values() if hasattr(leaf, "size")) < 0.4 * size
