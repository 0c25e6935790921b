import jax.numpy as jnp
import pytest
from flax import nnx

from jaxgpt.models.base import Model, ModelConfig, parameter_count
from jaxgpt.nn.params import constant


def test_parameters_are_counted_and_other_state_is_not():
    model = nnx.Dict({"a": constant(0.0, (3, 4), (None, None)), "b": nnx.Variable(jnp.zeros(7)), "c": jnp.zeros(5)})
    assert parameter_count(model) == 12


def test_what_a_model_must_define():
    for call in (lambda: Model()(jnp.zeros((1, 1))), lambda: Model().hidden(jnp.zeros((1, 1))), lambda: Model().head()):
        with pytest.raises(AssertionError, match="every model defines"):
            call()
    with pytest.raises(TypeError, match=r"must define make\(\)"):
        ModelConfig().make(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must define flops_per_token\(\)"):
        ModelConfig().flops_per_token(1)
    with pytest.raises(TypeError, match=r"must define with_hidden\(\)"):
        ModelConfig().with_hidden(1)
