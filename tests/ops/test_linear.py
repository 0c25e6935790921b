import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.ops.linear import linear


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "contract", "letters"),
    [
        ((2, 3, 4), (4, 5), 1, "abi,ij->abj"),
        ((2, 3, 4), (4, 5, 6), 1, "abi,ijk->abjk"),
        ((2, 3, 4, 5), (4, 5, 6), 2, "abij,ijk->abk"),
        ((4,), (4, 5), 1, "i,ij->j"),
    ],
)
def test_equals_einsum(x_shape, weight_shape, contract, letters):
    x, weight = draw(0, *x_shape), draw(1, *weight_shape)
    np.testing.assert_allclose(
        linear(x, weight, contract=contract), np.einsum(letters, x, weight), rtol=1e-5, atol=1e-5
    )


def test_bias_is_added_to_every_token():
    x, weight, bias = draw(0, 2, 3, 4), draw(1, 4, 5, 6), draw(2, 5, 6)
    wanted = np.einsum("abi,ijk->abjk", x, weight) + np.asarray(bias)[None, None]
    np.testing.assert_allclose(linear(x, weight, bias), wanted, rtol=1e-5, atol=1e-5)


def test_bfloat16_sums_in_float32():
    """A sum of many small numbers beside a large one stops growing in bfloat16, not in float32."""
    x = jnp.ones((1, 4096), jnp.bfloat16)
    y = linear(x, jnp.full((4096, 2), 1 / 256))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y, np.float32), [[16.0, 16.0]])


def test_gradients_equal_those_of_the_plain_product():
    x, weight, bias = draw(0, 2, 3, 4), draw(1, 4, 5), draw(2, 5)
    ours = jax.grad(lambda *a: (linear(*a) ** 2).sum(), argnums=(0, 1, 2))(x, weight, bias)
    plain = jax.grad(lambda x, w, b: ((x @ w + b[None, None]) ** 2).sum(), argnums=(0, 1, 2))(x, weight, bias)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_shapes_that_do_not_meet_are_refused():
    with pytest.raises(AssertionError):
        linear(jnp.ones((2, 3)), jnp.ones((4, 5)))
