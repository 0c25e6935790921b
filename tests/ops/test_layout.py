"""Layouts: nothing without a mesh; on one, the names decide, and time that is divided changes no result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from jaxgpt.nn.mixer.base import Mask
from jaxgpt.nn.position.base import Positions
from jaxgpt.ops import attention as ops_attention
from jaxgpt.ops import cross_entropy, layout
from jaxgpt.ops.attention import Dropout, Softmax, attention
from jaxgpt.ops.cross_entropy import Head
from jaxgpt.ops.fused import Rows
from jaxgpt.ops.linear import linear

MESH = AbstractMesh((2, 2, 1, 4, 2), ("data", "fsdp", "expert", "context", "tensor"))

PACKED = Positions.packed(jnp.array([[1] * 5 + [2] * 11, [1] * 13 + [0] * 3]))


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture
def four_parts(monkeypatch):
    """As on a mesh that divides time by four, computed on one device."""

    def extent(name):
        return 4 if name in ("time", "token") else 1

    for module in (layout, ops_attention, cross_entropy):
        monkeypatch.setattr(module, "extent", extent)


def test_without_a_mesh_nothing_happens():
    x = jnp.arange(12).reshape(2, 3, 2)
    assert layout.extent("time") == layout.extent("row") == 1
    assert layout.constrain(x, "row", "time", None) is x
    np.testing.assert_array_equal(layout.flatten_tokens(x), x.reshape(6, 2))
    np.testing.assert_array_equal(layout.unflatten_tokens(x.reshape(6, 2), 2, 3), x)
    assert layout.by_device(x).shape == (1, 2, 3, 2)


def test_a_mesh_of_others_is_left_alone():
    with jax.sharding.use_abstract_mesh(AbstractMesh((2,), ("copies",))):
        x = jnp.zeros((4, 8))
        assert layout.constrain(x, "row", "time") is x
        assert layout.extent("row") == 1


def test_names_become_axes_of_the_mesh_around():
    def asked(shape, *names):
        with jax.sharding.use_abstract_mesh(MESH):
            (equation,) = jax.make_jaxpr(lambda x: layout.constrain(x, *names))(jnp.zeros(shape)).eqns
        return equation.params["sharding"].spec

    free, rows = PartitionSpec.UNCONSTRAINED, ("data", "fsdp", "expert")
    assert asked((8, 16, 6), "row", "time", None) == PartitionSpec(rows, "context", None)
    assert asked((8, 15, 6), "row", "time", "heads") == PartitionSpec(rows, None, "tensor"), "15 is not divided by 4"
    assert asked((4, 8, 2, 3), "time", "row", ...) == PartitionSpec("context", rows, free, free)


def test_extents_are_those_of_the_mesh_around():
    with jax.sharding.use_abstract_mesh(MESH):
        assert [layout.extent(name) for name in ("row", "time", "token", "heads")] == [4, 4, 16, 2]
        assert layout.divides_time(8)
        assert not layout.divides_time(6)


@pytest.mark.usefixtures("four_parts")
def test_tokens_are_put_back_where_they_were():
    x = jnp.arange(2 * 8 * 3).reshape(2, 8, 3)
    flat = layout.flatten_tokens(x)
    np.testing.assert_array_equal(flat[:4], x[:, :2].reshape(4, 3), "the first part of both rows comes first")
    np.testing.assert_array_equal(layout.unflatten_tokens(flat, 2, 8), x)
    np.testing.assert_array_equal(layout.by_device(flat), flat.reshape(4, 4, 3))
    assert layout.by_device(flat[:6]).shape == (1, 6, 3), "six tokens are not divided by four"


@pytest.mark.usefixtures("four_parts")
def test_products_are_those_of_whole_sequences():
    x, weight, bias = normal(0, 2, 8, 3), normal(1, 3, 2, 5), normal(2, 2, 5)
    expected = jnp.einsum("btd,dnh->btnh", x, weight) + bias[None, None]
    np.testing.assert_allclose(linear(x, weight, bias), expected, atol=1e-6)


@pytest.mark.parametrize("where", [PACKED, Positions.of(jnp.zeros((2, 16)))], ids=["packed", "one document"])
@pytest.mark.parametrize("implementation", ["naive", "dense", "blockwise"])
def test_attention_is_that_of_whole_sequences_and_so_are_its_gradients(request, implementation, where):
    q, k, v = normal(0, 2, 16, 4, 6), normal(1, 2, 16, 2, 6), normal(2, 2, 16, 2, 5)
    softmax = Softmax(sinks_N=normal(3, 4))

    def total(q, k, v):
        y = attention(
            q, k, v, where, where, Mask(window=7), _slope, implementation=implementation, rows=Rows(), softmax=softmax
        )
        return jnp.sum(jnp.where(where.segment[..., None, None] > 0, jnp.sin(y), 0.0))

    whole = jax.value_and_grad(total, argnums=(0, 1, 2))(q, k, v)
    request.getfixturevalue("four_parts")
    parts = jax.value_and_grad(total, argnums=(0, 1, 2))(q, k, v)
    for mine, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


def _slope(q, k):
    behind = q.position[:, None, :, None] - k.position[:, None, None, :]
    return -0.1 * jnp.abs(behind) * jnp.ones((1, 4, 1, 1))


@pytest.mark.usefixtures("four_parts")
def test_parts_of_time_drop_out_independently():
    ones = jnp.ones((1, 16, 1, 2))
    where = Positions.of(jnp.zeros((1, 16)))
    y = attention(
        ones, ones, ones, where, where, lambda q, k: jnp.ones((1, 4, 16), bool), None, Dropout(0.5, jax.random.key(0))
    )
    parts = np.asarray(y[0, :, 0, 0]).reshape(4, 4)
    assert len({tuple(part) for part in parts.tolist()}) == 4


@pytest.mark.usefixtures("four_parts")
def test_the_loss_is_that_of_all_tokens_and_so_are_its_gradients():
    x, matrix = normal(0, 24, 5), normal(1, 5, 11)
    targets, weights = jnp.arange(24) % 11, jnp.linspace(0, 1, 24)

    def of(loss):
        return jax.value_and_grad(lambda x, matrix: loss(x, Head(matrix), targets, weights), argnums=(0, 1))(x, matrix)

    for mine, theirs in zip(
        *map(jax.tree.leaves, map(of, (cross_entropy.fused_by_device, cross_entropy.naive))), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
