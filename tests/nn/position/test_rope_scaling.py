from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt import registry
from jaxgpt.config import decode, override
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.rope_scaling import (
    DynamicNtkConfig,
    LinearConfig,
    Llama3Config,
    NtkConfig,
    ScalingConfig,
    Spectrum,
    YarnConfig,
)
from jaxgpt.nn.position.rotary import RopeConfig

GOLDEN = Spectrum(theta=150_000.0, width=64, train_length=4096)
LAPTOP = Spectrum(theta=10_000.0, width=32, train_length=128)


def lengths(*value: int):
    return jnp.array([value])


def normal(*shape: int):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def scaled(config: ScalingConfig, spectrum: Spectrum, length: int = 1):
    frequencies, temperature = config.scale(spectrum, lengths(length))
    return np.asarray(frequencies).reshape(-1), temperature


def rope(scaling: ScalingConfig | None, spectrum: Spectrum = LAPTOP, **fields):
    dims = PositionDims(4 * spectrum.width, spectrum.width, 4, spectrum.train_length)
    return RopeConfig(theta=spectrum.theta, scaling=scaling, **fields).make(dims, jax.random.key(0))


def all_scalings():
    return [
        pytest.param(config, id=f"{kind}-{number}")
        for kind, found in registry.kinds(ScalingConfig).items()
        for number, config in enumerate(found.examples())
        if getattr(config, "attention_factor", None) is None
    ]


# ------------------------------------------------------------------------------------------------- for every scaling


@pytest.mark.parametrize("config", all_scalings())
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_factor_one_is_plain_rope_bit_for_bit(config, fraction):
    config = type(config)(**{**vars(config), "factor": 1.0})
    positions = Positions.of(jnp.zeros((1, LAPTOP.train_length)))
    x = normal(1, LAPTOP.train_length, 2, LAPTOP.width)
    plain = rope(None, fraction=fraction).queries(x, positions)
    np.testing.assert_array_equal(rope(config, fraction=fraction).queries(x, positions), plain)


@pytest.mark.parametrize("config", all_scalings())
def test_frequencies_lie_between_plain_and_interpolated(config):
    """No scaling speeds a pair up, none divides by more than the factor (positions divided twice would)."""
    plain = LAPTOP.frequencies()
    found, _ = scaled(config, LAPTOP, length=int(LAPTOP.train_length * config.factor))
    wanted = config.factor * config.factor - config.factor + 1 if config.by_length else config.factor
    assert np.all(found <= plain * (1 + 1e-6))
    assert np.all(found >= plain / wanted * (1 - 1e-6))
    assert found[-1] < 0.7 * plain[-1], "slow pairs are slowed"


@pytest.mark.parametrize("config", all_scalings())
def test_original_length_is_the_training_length_unless_told(config):
    longer = Spectrum(LAPTOP.theta, LAPTOP.width, 4 * LAPTOP.train_length)
    told = type(config)(**{**vars(config), "original_length": LAPTOP.train_length})
    np.testing.assert_array_equal(scaled(told, longer, 2048)[0], scaled(config, LAPTOP, 2048)[0])


def test_yarn_is_spelt_by_its_type_alone():
    raw = override({"type": "rope"}, [("scaling.type", "yarn")])
    config = decode(PositionConfig, raw, "model.position")
    assert config == RopeConfig(scaling=YarnConfig(factor=4.0, original_length=None))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"type": "linear", "factor": 0.5}, "scaling: factor: 0.5 must be at least 1"),
        ({"type": "ntk", "original_length": 0}, "scaling: original_length: 0 must be at least 1"),
        ({"type": "yarn", "beta_fast": 1.0}, "scaling: beta_fast: 1.0 must be greater than beta_slow"),
        ({"type": "yarn", "attention_factor": 0.0}, "scaling: attention_factor: 0.0 must be greater than 0"),
        ({"type": "yarn", "ramp": "pairs"}, "scaling.ramp: 'pairs' is not possible"),
        ({"type": "llama3", "high_frequency_factor": 1.0}, "scaling: high_frequency_factor: 1.0 must be greater"),
        ({"type": "yarm"}, "no scaling is called 'yarm'; did you mean 'yarn'"),
    ],
)
def test_impossible_fields(raw, message):
    with pytest.raises(ConfigError, match=message):
        decode(ScalingConfig, raw, "scaling")


@pytest.mark.parametrize("config", [NtkConfig(), DynamicNtkConfig()])
def test_a_single_pair_cannot_change_its_base(config):
    with pytest.raises(ConfigError, match="rotary width of at least 4, and it is 2"):
        rope(config, Spectrum(1e4, 2, 128))


def test_a_scaling_without_a_formula_says_so():
    with pytest.raises(TypeError, match="ScalingConfig must define scale"):
        ScalingConfig().scale(LAPTOP, lengths(1))


# --------------------------------------------------------------------------------------------------------- linear, ntk


def test_linear_divides_positions_once():
    x = normal(1, 4, 4, 32)
    far, near = jnp.array([[0, 40, 400, 4000]]), jnp.array([[0, 10, 100, 1000]])
    stretched = rope(LinearConfig(factor=4.0)).queries(x, Positions(far, far, far))
    np.testing.assert_allclose(stretched, rope(None).queries(x, Positions(near, near, near)), atol=2e-4)


@pytest.mark.parametrize("factor", [2.0, 4.0, 10.0])
def test_ntk_keeps_the_first_pair_and_interpolates_the_last(factor):
    found, temperature = scaled(NtkConfig(factor=factor), GOLDEN)
    plain = GOLDEN.frequencies()
    assert found[0] == plain[0] == 1.0
    assert found[-1] == pytest.approx(plain[-1] / factor, rel=1e-14)
    assert temperature == 1.0
    base = 150_000.0 * factor ** (64 / 62)
    np.testing.assert_allclose(found, base ** (-np.arange(0, 64, 2) / 64), rtol=1e-12)


# --------------------------------------------------------------------------------------------------------- dynamic ntk


def test_dynamic_ntk_by_the_formula():
    config = DynamicNtkConfig(factor=4.0)
    for length in (129, 200, 512, 5000):
        base = 10_000.0 * (4.0 * length / 128 - 3.0) ** (32 / 30)
        np.testing.assert_allclose(scaled(config, LAPTOP, length)[0], base ** (-np.arange(0, 32, 2) / 32), rtol=1e-5)


def test_dynamic_ntk_is_plain_rope_up_to_the_original_length():
    plain = LAPTOP.frequencies().astype(np.float32)
    for factor in (1.1, 4.0, 7.3):
        for length in (1, 64, 128):
            np.testing.assert_array_equal(scaled(DynamicNtkConfig(factor=factor), LAPTOP, length)[0], plain)
        assert scaled(DynamicNtkConfig(factor=factor), LAPTOP, 129)[0][-1] < plain[-1]


def test_dynamic_ntk_takes_each_documents_own_length():
    encoding = rope(DynamicNtkConfig())
    assert encoding.rotates_by_length
    assert not encoding.shift_invariant
    cos, _ = encoding.tables(Positions.packed(jnp.asarray(np.repeat([1, 2, 3], [300, 100, 200]))[None]))
    for begin, length in ((0, 300), (300, 100), (400, 200)):
        stretch = 4.0 * max(length, 128) / 128 - 3.0
        angles = np.arange(length)[:, None] * (10_000.0 * stretch ** (32 / 30)) ** (-np.arange(0, 32, 2) / 32)
        np.testing.assert_allclose(cos[0, begin : begin + length], np.cos(angles), atol=1e-4)


def test_static_scalings_keep_keys_rotated():
    assert not rope(YarnConfig()).rotates_by_length
    assert rope(YarnConfig()).shift_invariant


# ---------------------------------------------------------------------------------------------------------------- yarn


def test_yarn_ramp_golden():
    config = YarnConfig(truncate=False)
    assert config.bounds(GOLDEN) == (pytest.approx(8.092779115512402, abs=1e-12), pytest.approx(17.39802450158856))
    assert YarnConfig(truncate=True).bounds(GOLDEN) == (8, 18)
    share = config.interpolated(GOLDEN)
    np.testing.assert_array_equal(share[:9], 0)
    np.testing.assert_array_equal(share[18:], 1)
    assert share[12] == pytest.approx((12 - 8.092779115512402) / (17.39802450158856 - 8.092779115512402), rel=1e-12)


def test_yarn_bounds_are_clamped_to_the_rotary_width():
    """Not to its half: a ramp ending beyond the last pair must not be steepened."""
    short = Spectrum(theta=10_000.0, width=32, train_length=128)
    assert YarnConfig().bounds(short) == (0, 6)
    slow = Spectrum(theta=4.0, width=16, train_length=4096)
    low, high = YarnConfig(truncate=False, beta_fast=200.0).bounds(slow)
    assert low == pytest.approx(16 * math.log(4096 / (400 * math.pi)) / (2 * math.log(4)))
    assert high == 15


def test_yarn_ramp_of_no_width_is_a_step():
    point = Spectrum(theta=10_000.0, width=32, train_length=2)  # both ends are clamped to 0
    assert YarnConfig().bounds(point) == (0, 0)
    np.testing.assert_array_equal(YarnConfig().interpolated(point), [0] + [1] * 15)


def test_yarn_by_the_authors_code():
    """Kept and interpolated frequencies mixed by the mask of LlamaYaRNScaledRotaryEmbedding, transcribed."""
    factor, width, base, original = 16.0, 128, 10_000.0, 4096

    def correction_dimension(rotations):
        return (width * math.log(original / (rotations * 2 * math.pi))) / (2 * math.log(base))

    low = max(math.floor(correction_dimension(32)), 0)
    high = min(math.ceil(correction_dimension(1)), width - 1)
    kept = 1.0 / base ** (np.arange(0, width, 2) / width)
    mask = 1 - np.clip((np.arange(width // 2) - low) / (high - low), 0, 1)
    expected = kept / factor * (1 - mask) + kept * mask
    found, temperature = scaled(YarnConfig(factor=factor), Spectrum(base, width, original))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert temperature == pytest.approx(0.1 * math.log(16) + 1)


def test_yarn_ramp_over_rotations_by_the_paper():
    spectrum, factor = Spectrum(10_000.0, 128, 2048), 8.0
    found, _ = scaled(YarnConfig(factor=factor, ramp="rotations"), spectrum)
    for theta, f in zip(spectrum.frequencies(), found, strict=True):
        rotations = 2048 / (2 * math.pi / theta)
        gamma = 0 if rotations < 1 else 1 if rotations > 32 else (rotations - 1) / 31
        assert f == pytest.approx((1 - gamma) * theta / factor + gamma * theta, rel=1e-12)


def test_yarn_ramps_differ_at_short_lengths():
    by_index, by_rotations = scaled(YarnConfig(), LAPTOP)[0], scaled(YarnConfig(ramp="rotations"), LAPTOP)[0]
    assert np.abs(by_index / by_rotations - 1).max() > 0.25


def test_yarn_temperature_scales_scores_by_its_square_once():
    """s = 4: 1.13863 on queries and on keys, 1.29648 on scores."""
    q, k = normal(2, 1, 1, 4, 32)
    origin = Positions.of(jnp.zeros((1, 1)))  # nothing turns at position 0

    def score(encoding):
        return (encoding.queries(q, origin) * encoding.keys(k, origin)).sum(-1)

    ratio = score(rope(YarnConfig(factor=4.0))) / score(rope(None))
    np.testing.assert_allclose(ratio, 1.29648, rtol=1e-5)
    np.testing.assert_allclose(score(rope(YarnConfig(attention_factor=1.0))) / score(rope(None)), 1.0, rtol=1e-6)


# -------------------------------------------------------------------------------------------------------------- llama3


def test_llama3_by_the_reference_code():
    """apply_scaling of llama-models, transcribed, with the released settings."""
    factor, low_factor, high_factor, original = 8.0, 1.0, 4.0, 8192
    spectrum = Spectrum(500_000.0, 128, original)
    expected = []
    for frequency in spectrum.frequencies():
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high_factor:
            expected.append(frequency)
        elif wavelength > original / low_factor:
            expected.append(frequency / factor)
        else:
            smooth = (original / wavelength - low_factor) / (high_factor - low_factor)
            expected.append((1 - smooth) * frequency / factor + smooth * frequency)
    found, temperature = scaled(Llama3Config(), spectrum)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert temperature == 1.0
    assert len(set(np.round(np.array(expected) / spectrum.frequencies(), 6))) > 3, "all three branches are met"
