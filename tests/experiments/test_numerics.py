"""The accuracy table: what it measures, and that the recorded page has every encoding with a formula."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from experiments import numerics, oracles
from jaxgpt import registry
from jaxgpt.nn.position.absolute import SinusoidalConfig
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import PositionConfig
from jaxgpt.nn.position.longrope import LongRopeConfig
from jaxgpt.nn.position.rope_scaling import DynamicNtkConfig, ScalingConfig, YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.position.xpos import XposConfig

PAGE = Path(numerics.__file__).parent / "results" / "numerics.md"


@pytest.mark.parametrize(
    ("config", "position", "dtype", "low", "high"),
    [
        (AlibiConfig(), 1_000_000, jnp.float32, 0, 0.04),  # half a unit in the last place of 250,000, and the products'
        (RopeConfig(), 1_000, jnp.float32, 0, 1e-3),
        (RopeConfig(), 1_000_000, jnp.float32, 1e-3, 1),
        (RopeConfig(), 1_000, jnp.bfloat16, 1e-3, 0.1),
        (XposConfig(), 1_000, jnp.float32, 0, 1e-3),
        (XposConfig(), 1_000_000, jnp.float32, 0.1, 10),
        (RopeConfig(scaling=YarnConfig()), 1_000, jnp.float32, 0, 1e-3),
        (RopeConfig(scaling=DynamicNtkConfig()), 32_000, jnp.float32, 0, 1e-2),
        (SinusoidalConfig(), 1_000, jnp.float32, 0, 1e-5),
    ],
)
def test_errors_are_of_the_expected_size(config, position, dtype, low, high):
    found, size = numerics.error(config, position, dtype)
    assert low <= found <= high
    assert size > 0


def test_page_has_every_encoding_with_a_formula():
    text = PAGE.read_text()
    formulas = oracles.EMBEDDINGS | oracles.BIASES | oracles.PRODUCTS
    assert {kind for kind, config in registry.kinds(PositionConfig).items() if config not in formulas} <= {"randomised"}
    assert set(registry.kinds(ScalingConfig).values()) == set(oracles.SCALINGS)
    for note, config in numerics.measured_configs():
        assert note in numerics.NOTES
        assert f"| `{numerics.spelled(config)}` |" in text


def test_names_say_what_differs_from_the_default():
    assert numerics.spelled(RopeConfig()) == "rope"
    assert numerics.spelled(RopeConfig(fraction=0.5)) == "rope (fraction=0.5)"
    yarn = RopeConfig(scaling=YarnConfig(ramp="rotations"))
    assert numerics.spelled(yarn) == "rope (scaling=yarn (ramp=rotations))"
    assert numerics.spelled(LongRopeConfig(long_factors=(1.0, 2.5, 4.0))) == "longrope (long_factors=1 to 4)"
    assert numerics.table([["a", "b"]]).splitlines()[-1] == "| a | b |"
