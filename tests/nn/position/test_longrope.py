from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from jaxgpt.config import decode, encode, write_yaml
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.longrope import LongRopeConfig
from jaxgpt.nn.position.rope_scaling import Spectrum
from jaxgpt.nn.position.rotary import RopeConfig

SPECTRUM = Spectrum(theta=10_000.0, width=8, train_length=128)
SHORT, LONG = (1.0, 1.0, 1.05, 1.1), (1.0, 2.0, 8.0, 32.0)
LISTS = LongRopeConfig(factor=32.0, short_factors=SHORT, long_factors=LONG)


def test_golden_values():
    """Frequencies of 8 dimensions are 1, 0.1, 0.01, 0.001; the temperature is sqrt(1 + ln 32 / ln 128) = sqrt(12/7)."""
    frequencies, temperature = LISTS.scale(SPECTRUM, jnp.array([[1, 128, 129, 5000]]))
    assert frequencies.dtype == jnp.float32
    for found in frequencies[0, :2]:
        np.testing.assert_allclose(found, [1, 0.1, 0.01 / 1.05, 0.001 / 1.1], rtol=1e-6)
    for found in frequencies[0, 2:]:
        np.testing.assert_allclose(found, [1, 0.05, 0.00125, 0.00003125], rtol=1e-6)
    assert temperature == pytest.approx(math.sqrt(12 / 7), rel=1e-15)


def test_without_lists_long_documents_are_interpolated():
    frequencies, temperature = LongRopeConfig(factor=4.0).scale(SPECTRUM, jnp.array([[128, 129]]))
    np.testing.assert_allclose(frequencies[0], [[1, 0.1, 0.01, 0.001], [0.25, 0.025, 0.0025, 0.00025]], rtol=1e-6)
    assert temperature == pytest.approx(math.sqrt(1 + math.log(4) / math.log(128)))
    assert LongRopeConfig(factor=4.0, attention_factor=1.5).temperature(SPECTRUM) == 1.5


def test_each_document_has_its_own_list():
    rope = RopeConfig(scaling=LISTS).make(PositionDims(32, 8, 4, 128), jax.random.key(0))
    assert rope.rotates_by_length
    cos, _ = rope.tables(Positions.packed(jnp.asarray(np.repeat([1, 2], [100, 200]))[None]))
    for begin, length, factors in ((0, 100, SHORT), (100, 200, LONG)):
        angles = np.arange(length)[:, None] * SPECTRUM.frequencies() / np.array(factors)
        np.testing.assert_allclose(cos[0, begin : begin + length], math.sqrt(12 / 7) * np.cos(angles), atol=3e-5)


def test_lists_survive_yaml():
    config = RopeConfig(scaling=LISTS)
    assert decode(PositionConfig, yaml.safe_load(write_yaml(encode(config)))) == config


def test_wrong_length_names_how_many_are_needed():
    rope = RopeConfig(scaling=LISTS)
    with pytest.raises(ConfigError, match=r"position\.scaling\.short_factors: 4 numbers are given and 8 are needed"):
        rope.check(PositionDims(64, 16, 4, 128))
    with pytest.raises(ConfigError, match=r"long_factors: 1 numbers are given and 4 are needed, .* rotary width 8"):
        LongRopeConfig(long_factors=(2.0,)).check(SPECTRUM)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"long_factors": [1.0, 0.0]}, "long_factors: .* must all be greater than 0"),
        ({"attention_factor": 0.0}, "attention_factor: 0.0 must be greater than 0"),
        ({"factor": 0.5}, "factor: 0.5 must be at least 1"),
    ],
)
def test_impossible_fields(raw, message):
    with pytest.raises(ConfigError, match=message):
        decode(PositionConfig, {"type": "rope", "scaling": {"type": "longrope", **raw}}, "position")


def test_a_length_without_logarithm_is_refused():
    with pytest.raises(ConfigError, match="original_length: 1 has no logarithm"):
        LongRopeConfig(original_length=1).check(SPECTRUM)
    LongRopeConfig(original_length=1, attention_factor=1.0).check(SPECTRUM)
