from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.absolute import LearnedConfig, SinusoidalConfig
from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions

DIMS = PositionDims(width=6, head_dim=4, num_heads=2, train_length=8)


def at(*position: int) -> Positions:
    array = jnp.array([position])
    return Positions(array, jnp.arange(len(position))[None], jnp.ones_like(array))


@functools.cache
def learned(**fields):
    return LearnedConfig(**fields).make(DIMS, jax.random.key(0))


# -------------------------------------------------------------------------------------------------------------- learned


def test_learned_adds_the_row_of_each_position():
    encoding = learned()
    x = jnp.ones((3, 2, 6))
    np.testing.assert_array_equal(
        encoding.embed(x, at(7, 2)), 1 + jnp.stack([encoding.table[...][jnp.array([7, 2])]] * 3)
    )


def test_learned_table_is_as_long_as_training_unless_told():
    assert learned().table.shape == (8, 6)
    longer = learned(num_positions=1000, init_std=0.5)
    assert longer.table.shape == (1000, 6)
    assert longer.max_length == 1000
    assert float(longer.table[...].std()) == pytest.approx(0.5, rel=0.05)


def test_learned_refuses_concrete_positions_beyond_its_table():
    with pytest.raises(
        ConfigError, match=r"learned has values for 8 positions, and 9 are needed.*position\.beyond=clamp"
    ):
        learned().embed(jnp.zeros((1, 2, 6)), at(3, 8))


def test_learned_never_serves_another_positions_vector_when_compiled():
    y = jax.jit(lambda encoding, positions: encoding.embed(jnp.zeros((1, 3, 6)), positions))(learned(), at(7, 8, 100))
    assert jnp.isfinite(y[0, 0]).all()
    assert jnp.isnan(y[0, 1:]).all()


def test_learned_padding_may_stand_anywhere():
    positions = Positions(jnp.array([[0, 50]]), jnp.array([[0, 1]]), jnp.array([[1, 0]]))
    embed = jax.jit(lambda encoding, positions: encoding.embed(jnp.zeros((1, 2, 6)), positions))
    assert jnp.isfinite(embed(learned(), positions)).all()
    assert jnp.isfinite(learned().embed(jnp.zeros((1, 2, 6)), positions)).all()


def test_learned_clamps_if_told():
    encoding = learned(beyond="clamp")
    encoding.check_range(10**6)
    y = encoding.embed(jnp.zeros((1, 3, 6)), at(7, 8, 100))
    np.testing.assert_array_equal(y, jnp.stack([encoding.table[...][7]] * 3)[None])


def test_learned_gradient_goes_to_the_rows_used():
    gradient = jax.grad(lambda encoding: encoding.embed(jnp.zeros((1, 2, 6)), at(1, 6)).sum())(learned()).table[...]
    np.testing.assert_array_equal(gradient[:, 0], [0, 1, 0, 0, 0, 0, 1, 0])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"type": "learned", "num_positions": 0}, "position: num_positions: 0 must be at least 1"),
        ({"type": "learned", "beyond": "wrap"}, "position.beyond: 'wrap' is not possible"),
        ({"type": "sinusoidal", "theta": 1.0}, "position: theta: 1.0 must be greater than 1"),
    ],
)
def test_impossible_fields(raw, message):
    with pytest.raises(ConfigError, match=message):
        decode(PositionConfig, raw, "position")


# ----------------------------------------------------------------------------------------------------------- sinusoidal


@pytest.mark.parametrize("width", [6, 7, 64])
def test_sinusoids_by_the_papers_formula(width):
    position = [0, 1, 5, 511, 8191]
    expected = np.zeros((1, len(position), width))
    for row, where in enumerate(position):
        for dimension in range(width):
            angle = where / 10_000.0 ** (2 * (dimension // 2) / width)
            expected[0, row, dimension] = np.cos(angle) if dimension % 2 else np.sin(angle)
    table = SinusoidalConfig().make(DIMS, jax.random.key(0)).table(at(*position).position, width)
    np.testing.assert_allclose(table, expected, atol=8191 * 2**-23)


def test_sinusoids_do_not_swamp_the_embeddings():
    """The default keeps the paper's ratio: embeddings of variance 1 beside a table of mean square 1/2."""
    encoding = SinusoidalConfig().make(DIMS, jax.random.key(0))
    x = 0.02 * jnp.asarray(np.random.default_rng(1).standard_normal((1, 512, 64)), jnp.float32)
    added = encoding.embed(x, Positions.of(x)) - x
    assert float(jnp.sqrt((added**2).mean()) / jnp.sqrt((x**2).mean())) == pytest.approx(0.5**0.5, rel=0.02)
    unscaled = SinusoidalConfig(scale=1.0).make(DIMS, jax.random.key(0)).embed(0 * x, Positions.of(x))
    np.testing.assert_allclose(jnp.linalg.norm(unscaled, axis=-1), 32**0.5, rtol=1e-5)
