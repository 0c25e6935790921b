from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.rope_scaling import YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig, rotary_width

HEAD = 16
DIMS = PositionDims(width=64, head_dim=HEAD, num_heads=4, train_length=128)


def make(dims=DIMS, **fields):
    return RopeConfig(**fields).make(dims, jax.random.key(0))


def at(*position: int) -> Positions:
    array = jnp.array([position])
    return Positions(array, array, jnp.ones_like(array))


def normal(*shape: int):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def turned_by_hand(x, position, pairs, theta=10_000.0):
    """float64: each pair of dimensions as a complex number times exp(i * angle)."""
    out = np.array(x, np.float64)
    for p, (a, b) in enumerate(pairs):
        number = (x[..., a] + 1j * x[..., b]) * np.exp(1j * position * theta ** (-2 * p / (2 * len(pairs))))
        out[..., a], out[..., b] = number.real, number.imag
    return out


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("layout", ["half_split", "interleaved"])
def test_pairs_turn_as_complex_numbers(layout, fraction):
    width = int(HEAD * fraction)
    pairs = [(p, p + width // 2) if layout == "half_split" else (2 * p, 2 * p + 1) for p in range(width // 2)]
    x = normal(2, 3, 4, HEAD)
    position = (0, 7, 100)
    rope = make(layout=layout, fraction=fraction)
    for turned in (rope.queries(x, at(*position)), rope.keys(x, at(*position))):
        for t, where in enumerate(position):
            np.testing.assert_allclose(turned[:, t], turned_by_hand(x[:, t], where, pairs), atol=1e-4)
        np.testing.assert_array_equal(turned[..., width:], x[..., width:])


def test_layouts_are_permutations_of_each_other():
    x = normal(1, 3, 2, HEAD)
    order = np.arange(HEAD).reshape(2, -1).T.ravel()  # half_split's dimensions in interleaved order
    split = make().queries(x, at(1, 50, 99))[..., order]
    np.testing.assert_allclose(make(layout="interleaved").queries(x[..., order], at(1, 50, 99)), split, rtol=1e-6)


@pytest.mark.parametrize("position", [0, 1, 1000, 100_000, 1_000_000])
def test_tables_against_float64(position):
    """One float32 rounding of the frequency and one of the angle: off by up to position * 2^-23 radians, 0.12 at a
    million."""
    cos, sin = make(PositionDims(512, 128, 4, 128)).tables(at(position))
    angles = position * 10_000.0 ** (-np.arange(0, 128, 2) / 128)
    tolerance = 2e-7 + position * 2.0**-23
    np.testing.assert_allclose(cos[0, 0], np.cos(angles), atol=tolerance)
    np.testing.assert_allclose(sin[0, 0], np.sin(angles), atol=tolerance)


def test_angles_are_float32_whatever_the_activations_are():
    """bfloat16 angles would keep 897 distinct positions below 8192."""
    positions = Positions.of(jnp.zeros((1, 8192)))
    ones = jnp.ones((1, 8192, 1, 2), jnp.bfloat16)
    turned = make(PositionDims(8, 2, 4, 128), theta=1e4).queries(ones, positions)
    assert turned.dtype == jnp.bfloat16
    exact = np.cos(np.arange(8192.0)) - np.sin(np.arange(8192.0))
    np.testing.assert_allclose(turned[0, :, 0, 0].astype(jnp.float32), exact, atol=1e-2)


def test_turning_keeps_norms():
    x = normal(2, 5, 4, HEAD)
    norms = jnp.linalg.norm(make().queries(x, at(0, 1, 10, 1000, 10**6)), axis=-1)
    np.testing.assert_allclose(norms, jnp.linalg.norm(x, axis=-1), rtol=1e-5)


def test_temperature_multiplies_queries_and_keys():
    x = normal(1, 2, 4, HEAD)
    plain, sharp = make(), make(scaling=YarnConfig(factor=1.0, attention_factor=1.5))
    for method in ("queries", "keys"):
        expected = 1.5 * getattr(plain, method)(x, at(3, 9))
        np.testing.assert_allclose(getattr(sharp, method)(x, at(3, 9)), expected, rtol=1e-5, atol=1e-6)


def test_temperature_spares_the_dimensions_that_do_not_turn():
    """As the reference models do: it multiplies cos and sin."""
    x = jnp.ones((1, 1, 1, HEAD))
    half = make(fraction=0.5, scaling=YarnConfig(factor=1.0, attention_factor=1.5)).queries(x, at(0))
    np.testing.assert_allclose(half[0, 0, 0], [1.5] * 8 + [1.0] * 8)


@pytest.mark.parametrize(
    ("fraction", "head_dim", "width"), [(1.0, 64, 64), (0.25, 64, 16), (0.4, 80, 32), (0.1, 60, 6)]
)
def test_rotary_width(fraction, head_dim, width):
    assert rotary_width(fraction, head_dim) == width


@pytest.mark.parametrize("head_dim", [2, 3, 31, 33, 64, 127])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.3, 0.9, 1.0])
def test_odd_rotary_width_names_the_field_and_a_valid_value(fraction, head_dim):
    try:
        assert rotary_width(fraction, head_dim) % 2 == 0
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert message.startswith(f"position.fraction: rope turns pairs of dimensions, and {fraction:g}")
    suggested = float(message.split("fraction=")[1].split()[0])
    assert rotary_width(suggested, head_dim) % 2 == 0, message
    assert ("even head width" in message) == (head_dim % 2 == 1)


def test_a_head_of_one_dimension_cannot_turn():
    with pytest.raises(ConfigError, match="head width of 1"):
        make(PositionDims(4, 1, 4, 128))


@pytest.mark.parametrize(("field", "value"), [("theta", 1.0), ("fraction", 0.0), ("fraction", 1.5)])
def test_impossible_fields(field, value):
    with pytest.raises(ConfigError, match=f"model.position: {field}: {value} must be"):
        decode(PositionConfig, {"type": "rope", field: value}, "model.position")
