from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.kerple import Kerple, KerpleConfig

DIMS = PositionDims(width=8, head_dim=4, num_heads=2, train_length=16)
FORMS = ("log", "power")


def at(*position: int) -> Positions:
    array = jnp.array([position])
    return Positions(array, array, jnp.ones_like(array))


def make(form: str, p, a) -> Kerple:
    encoding = KerpleConfig(form=form).make(DIMS, jax.random.key(0))
    encoding.p[...], encoding.a[...] = jnp.array(p), jnp.array(a)
    return encoding


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        # by hand: -2 ln(1 + 1 * 3), -0.5 ln(1 + 0.5 * 3); -1 * 3^2, -0.5 * 3^0.5
        ("log", [-2.772588722, -0.458145366]),
        ("power", [-9.0, -0.866025404]),
    ],
)
def test_golden_values(form, expected):
    bias = make(form, [2.0, 0.5], [1.0, 0.5]).bias(at(7), at(7, 4))
    np.testing.assert_allclose(bias[0, :, 0, 1], expected, rtol=1e-6)
    np.testing.assert_array_equal(bias[0, :, 0, 0], [0, 0])


@pytest.mark.parametrize("form", FORMS)
def test_against_float64(form, compare):
    found, wanted = compare(KerpleConfig(form=form), [5, 90, 1000], [0, 3, 90, 127])
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


def test_parameters_start_in_their_ranges():
    encoding = KerpleConfig().make(PositionDims(8, 4, 4000, 16), jax.random.key(0))
    p, a = np.asarray(encoding.p[...]), np.asarray(encoding.a[...])
    assert 0 <= p.min() < 0.01 < 1.99 < p.max() < 2
    assert 0 <= a.min() < 0.01 < 0.99 < a.max() < 1
    assert not encoding.p.get_metadata()["decay"]
    assert encoding.a.get_metadata()["axes"] == ("heads",)


@pytest.mark.parametrize("form", FORMS)
def test_parameters_are_held_and_can_come_back(form):
    """Below the floor the value is that of the floor, and the gradient is as if there were none."""

    def total(encoding):
        return encoding.bias(at(9), at(0, 5)).sum()

    outside, floor = make(form, [-1.0, 0.01], [-3.0, 0.01]), make(form, [0.01] * 2, [0.01] * 2)
    np.testing.assert_allclose(total(outside), total(floor), rtol=1e-5)
    for name in ("p", "a"):
        gradients = [getattr(jax.grad(total)(encoding), name)[...] for encoding in (outside, floor)]
        np.testing.assert_allclose(*gradients, rtol=1e-4)
        assert np.all(gradients[0] < 0)


def test_power_is_at_most_two():
    assert float(make("power", [5.0, 1], [1.0, 1]).bias(at(10), at(0))[0, 0, 0, 0]) == -100
    assert float(make("log", [5.0, 1], [1.0, 1]).bias(at(1), at(0))[0, 0, 0, 0]) == pytest.approx(-5 * np.log(2))


@pytest.mark.parametrize("form", FORMS)
def test_gradient_at_distance_zero_is_finite(form):
    gradient = jax.grad(lambda encoding: encoding.bias(at(4), at(4)).sum())(make(form, [0.5, 2], [0.3, 1]))
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradient))


def test_unknown_form_is_named():
    with pytest.raises(ConfigError, match=r"position.form: 'exp' is not possible"):
        decode(PositionConfig, {"type": "kerple", "form": "exp"}, "position")
