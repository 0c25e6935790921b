import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxgpt.nn.activation import ACTIVATIONS, Activation

X = np.linspace(-4, 4, 33)
FORMULAS = {
    "relu": np.maximum(X, 0),
    "relu_squared": np.maximum(X, 0) ** 2,
    "gelu_erf": X * norm.cdf(X),
    "gelu_tanh": 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))),
    "silu": X / (1 + np.exp(-X)),
}


def test_every_name_that_can_be_configured_has_its_function_and_its_formula():
    assert set(ACTIVATIONS) == set(typing.get_args(Activation)) == set(FORMULAS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values(name):
    y = ACTIVATIONS[name](jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(y, FORMULAS[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_type_stays_and_gradients_are_finite(name):
    assert ACTIVATIONS[name](jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
    gradient = jax.grad(lambda x: ACTIVATIONS[name](x).sum())(jnp.array([-50.0, 0.0, 50.0]))
    assert jnp.isfinite(gradient).all()
