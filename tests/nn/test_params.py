import jax
import jax.numpy as jnp
import numpy as np

from jaxgpt.nn.params import constant, named, normal, uniform

KEY = jax.random.key(0)


def test_a_name_is_the_same_key_in_every_process():
    """crc32, unlike `hash`, does not depend on PYTHONHASHSEED; the value is kept here."""
    wanted = jax.random.fold_in(KEY, 0x352441C2)  # crc32(b"abc")
    np.testing.assert_array_equal(jax.random.key_data(named(KEY, "abc")), jax.random.key_data(wanted))


def test_names_and_keys_tell_parameters_apart():
    one = normal(KEY, "one", (4, 4), (None, None))[...]
    np.testing.assert_array_equal(one, normal(KEY, "one", (4, 4), (None, None))[...])
    assert not np.allclose(one, normal(KEY, "other", (4, 4), (None, None))[...])
    assert not np.allclose(one, normal(jax.random.key(1), "one", (4, 4), (None, None))[...])


def test_normal_has_its_deviation_and_its_metadata():
    parameter = normal(KEY, "matrix", (200, 100), ("embed", None), std=0.5)
    value = parameter[...]
    assert (value.shape, value.dtype) == ((200, 100), jnp.float32)
    assert abs(float(value.std()) - 0.5) < 0.01
    assert abs(float(value.mean())) < 0.01
    assert parameter.get_metadata()["axes"] == ("embed", None)
    assert parameter.get_metadata()["decay"] is True
    assert normal(KEY, "vector", (2,), (None,), decay=False).get_metadata()["decay"] is False


def test_constant_is_constant_and_does_not_decay():
    parameter = constant(1.5, (3,), ("embed",))
    np.testing.assert_array_equal(parameter[...], np.full(3, 1.5, np.float32))
    assert parameter.get_metadata()["decay"] is False
    assert parameter.get_metadata()["axes"] == ("embed",)


def test_uniform_fills_its_range_and_does_not_decay():
    parameter = uniform(KEY, "slope", (1000,), ("heads",), 1.0, 3.0)
    value = np.asarray(parameter[...])
    assert value.dtype == np.float32
    assert 1 <= value.min() < 1.02
    assert 2.98 < value.max() < 3
    assert parameter.get_metadata()["axes"] == ("heads",)
    assert parameter.get_metadata()["decay"] is False
