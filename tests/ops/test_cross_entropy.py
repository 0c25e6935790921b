"""The fused form against the naive one. Shapes: M tokens, D width, V vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.ops import cross_entropy
from jaxgpt.ops.cross_entropy import Head, fused, naive, token_losses

M, D, V = 13, 8, 32
TARGETS = jnp.asarray(np.random.default_rng(2).integers(0, V, M), jnp.int32)
WEIGHTS = jnp.asarray(np.random.default_rng(3).random(M) * (np.arange(M) != 5), jnp.float32)


HEADS = {
    "matrix": Head,
    "bias": lambda matrix: Head(matrix, draw(4, V)),
    "all": lambda matrix: Head(matrix, draw(4, V), scale=0.7, soft_cap=1.5),
}
each = pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)


def draw(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@pytest.fixture(params=[1, 2, 5, 13], ids="{} chunks".format)
def chunks(request, monkeypatch):
    """Make the tokens fall into this many chunks; 13 tokens divide by none but 1 and 13."""
    monkeypatch.setattr(cross_entropy, "LEAST_CHUNKS", 1)
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", -(-M // request.param) * V * 4)
    wanted = -(-M * V * 4 // cross_entropy.CHUNK_BYTES)
    assert len(cross_entropy._chunks(draw(0, M, D), Head(draw(1, D, V)), TARGETS, WEIGHTS)[0]) == wanted


def test_token_losses_are_the_formula():
    logits = draw(0, 3, 4, V)
    targets = jnp.asarray(np.random.default_rng(1).integers(0, V, (3, 4)))
    shares = np.exp(np.asarray(logits, np.float64))
    shares /= shares.sum(-1, keepdims=True)
    wanted = -np.log(np.take_along_axis(shares, np.asarray(targets)[..., None], -1)[..., 0])
    np.testing.assert_allclose(token_losses(logits, targets), wanted, rtol=1e-5)


@each
@pytest.mark.usefixtures("chunks")
def test_value_equals_the_naive_form_with_and_without_gradients(make):
    x, head = draw(0, M, D), make(draw(1, D, V))
    wanted = naive(x, head, TARGETS, WEIGHTS)
    np.testing.assert_allclose(fused(x, head, TARGETS, WEIGHTS), wanted, rtol=1e-5)
    value, _ = jax.value_and_grad(fused)(x, head, TARGETS, WEIGHTS)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)


@each
@pytest.mark.usefixtures("chunks")
def test_gradients_equal_the_naive_form(make):
    x, head = draw(0, M, D), make(draw(1, D, V))
    ours = jax.grad(lambda x, head: 3.0 * fused(x, head, TARGETS, WEIGHTS), argnums=(0, 1))(x, head)
    wanted = jax.grad(lambda x, head: 3.0 * naive(x, head, TARGETS, WEIGHTS), argnums=(0, 1))(x, head)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not np.asarray(ours[0][5]).any(), "a token of weight 0 has no gradient"


@pytest.mark.usefixtures("chunks")
def test_bfloat16_hidden_states_with_a_float32_head():
    x, head = draw(0, M, D, dtype=jnp.bfloat16), Head(draw(1, D, V))
    value, (of_x, of_head) = jax.value_and_grad(fused, argnums=(0, 1))(x, head, TARGETS, WEIGHTS)
    wanted, wanted_gradients = jax.value_and_grad(naive, argnums=(0, 1))(
        x, Head(head.matrix_DV.astype(jnp.bfloat16).astype(jnp.float32)), TARGETS, WEIGHTS
    )
    assert (value.dtype, of_x.dtype, of_head.matrix_DV.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(value, wanted, rtol=1e-3)
    np.testing.assert_allclose(of_x.astype(jnp.float32), wanted_gradients[0].astype(jnp.float32), atol=0.03)
    np.testing.assert_allclose(of_head.matrix_DV, wanted_gradients[1].matrix_DV, atol=0.03)


def test_large_logits_neither_overflow_nor_lose_the_loss():
    x, head = jnp.full((2, 1), 1e4), Head(jnp.array([[1.0, -1.0]]))
    targets, weights = jnp.array([0, 1]), jnp.ones(2)
    value, gradient = jax.value_and_grad(fused)(x, head, targets, weights)
    assert float(value) == 2e4
    np.testing.assert_allclose(gradient, [[0.0], [2.0]])


@pytest.mark.parametrize(("tokens", "count"), [(1, 1), (16, 1), (17, 8), (160, 10)])
def test_what_does_not_fit_is_cut_small(monkeypatch, tokens, count):
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 16 * V * 4)
    x, targets = draw(0, tokens, D), jnp.zeros(tokens, jnp.int32)
    assert len(cross_entropy._chunks(x, Head(draw(1, D, V)), targets, jnp.ones(tokens))[0]) == count


def test_logits_of_all_tokens_never_exist_at_once(monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 16 * 1024 * 4)
    shapes = [(1024, 8), (8, 1024)]
    x, head = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    head = Head(head)
    targets, weights = jax.ShapeDtypeStruct((1024,), jnp.int32), jax.ShapeDtypeStruct((1024,), jnp.float32)

    def memory(loss):
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, head, targets, weights).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(fused) < 1024 * 1024 * 4 / 4 < memory(naive)


def test_logits_are_their_formula():
    x, matrix, bias = draw(0, M, D), draw(1, D, V), draw(4, V)
    raw = np.asarray(x, np.float64) @ np.asarray(matrix, np.float64) + np.asarray(bias)[None]
    head = Head(matrix, bias, scale=0.7, soft_cap=1.5)
    np.testing.assert_allclose(head.logits(x), 1.5 * np.tanh(0.7 * raw / 1.5), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(Head(matrix, bias).logits(x), raw, rtol=1e-4, atol=1e-4)
