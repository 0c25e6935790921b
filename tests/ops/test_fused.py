"""The platform's kernels: what they are asked for, and that they compute what the naive form does.

The TPU's runs here step by step; cuDNN's is compiled for a GPU in tests/train/test_forecast.py.
"""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from jaxgpt.nn.mixer.base import Mask
from jaxgpt.nn.position.base import Positions
from jaxgpt.ops import attention as ops_attention
from jaxgpt.ops import fused
from jaxgpt.ops.attention import Softmax, attention, naive
from jaxgpt.ops.fused import Rows, splash, why_not

B, T, N, K, H = 2, 128, 4, 2, 64
ONE_DOCUMENT = Positions.of(jnp.zeros((B, T)))
PACKED = Positions.packed(jnp.array([[1] * 50 + [2] * 78, [1] * 100 + [0] * 28]))


def qkv(dtype=jnp.float32, width=H, length=T):
    rng = np.random.default_rng(0)
    shapes = (B, length, N, width), (B, length, K, width), (B, length, K, width)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


@pytest.fixture
def on(monkeypatch):
    """`on(platform)`: as if compiled for it."""
    return lambda platform: monkeypatch.setattr(fused, "platform", lambda: platform)


@pytest.mark.parametrize("window", [None, 40], ids=["whole", "window"])
@pytest.mark.parametrize("soft_cap", [None, 3.0], ids=["plain", "soft cap"])
@pytest.mark.parametrize("where", [ONE_DOCUMENT, PACKED], ids=["one document", "packed"])
def test_splash_attention_equals_the_naive_form_and_so_do_its_gradients(where, window, soft_cap):
    segment = None if where is ONE_DOCUMENT else where.segment
    softmax = Softmax(scale=0.2, soft_cap=soft_cap)
    real = where.segment[..., None, None] > 0  # padding sees nothing, or itself: nobody asks

    def total(attend, *arrays):
        y = attend(*arrays)
        return jnp.sum(jnp.where(real, jnp.sin(y), 0.0)), jnp.where(real, y, 0.0)

    def by_kernel(q, k, v):
        with jax.numpy_rank_promotion("allow"):  # it is not ours
            return splash(q, k, v, segment, window=window, scale=0.2, soft_cap=soft_cap, interpret=True)

    def by_hand(q, k, v):
        return naive(q, k, v, where, where, Mask(window), softmax=softmax)

    (_, mine), gradients = jax.value_and_grad(functools.partial(total, by_kernel), (0, 1, 2), has_aux=True)(*qkv())
    (_, other), expected = jax.value_and_grad(functools.partial(total, by_hand), (0, 1, 2), has_aux=True)(*qkv())
    np.testing.assert_allclose(mine, other, atol=1e-5)
    for gradient, want in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, want, atol=1e-5)


@pytest.mark.parametrize(
    ("platform", "arrays", "rows", "soft_cap", "more", "reason"),
    [
        ("cpu", qkv(jnp.bfloat16), Rows(), None, False, "none for cpu"),
        ("gpu", qkv(jnp.bfloat16), Rows(), None, True, "no bias"),
        ("gpu", qkv(jnp.bfloat16), None, None, False, "not a cache"),
        ("gpu", qkv(), Rows(), None, False, "not float32"),
        ("gpu", qkv(jnp.bfloat16), Rows(PACKED.segment), None, False, "packed"),
        ("gpu", qkv(jnp.bfloat16), Rows(), 3.0, False, "soft cap"),
        ("gpu", qkv(jnp.bfloat16, width=12), Rows(), None, False, "width 12"),
        ("gpu", qkv(jnp.bfloat16), Rows(window=40), None, False, None),
        ("tpu", qkv(jnp.bfloat16), Rows(PACKED.segment, 40), 3.0, False, None),
        ("tpu", qkv(jnp.bfloat16, length=100), Rows(), None, False, "no multiple of 128"),
    ],
)
def test_what_a_kernel_cannot_do_has_a_reason(on, platform, arrays, rows, soft_cap, more, reason):
    on(platform)
    found = why_not(*arrays, rows, soft_cap, more=more)
    assert found is None if reason is None else reason in found


def test_values_of_another_width_are_not_for_kernels(on):
    on("tpu")
    q, k, v = qkv(jnp.bfloat16)
    assert "as wide as keys" in why_not(q, k, v[..., :32], Rows(), None, more=False)


def test_a_mesh_must_divide_rows_and_heads(on):
    on("tpu")
    mesh = AbstractMesh((1, 4, 1, 1, 1), ("data", "fsdp", "expert", "context", "tensor"))
    with jax.sharding.use_abstract_mesh(mesh):
        assert "evenly" in why_not(*qkv(jnp.bfloat16), Rows(), None, more=False)


def no_bias(q, k):
    return jnp.zeros((1, N, q.position.shape[1], k.position.shape[1]))


def test_attention_takes_the_kernel_where_it_can(on, monkeypatch):
    taken = []

    def kernel(q, *_):
        taken.append(q.shape)
        return q

    monkeypatch.setattr(ops_attention, "fused", kernel)
    arguments = *qkv(jnp.bfloat16), ONE_DOCUMENT, ONE_DOCUMENT, Mask()
    on("gpu")
    attention(*arguments, rows=Rows())
    assert taken == [(B, T, N, H)]
    attention(*arguments, rows=Rows(), bias=no_bias)
    attention(*arguments, rows=Rows(), softmax=Softmax(sinks_N=jnp.zeros(N)))
    attention(*arguments, rows=Rows(), implementation="dense")
    attention(*arguments)
    assert len(taken) == 1


def test_a_kernel_that_is_asked_for_in_vain_is_a_warning_once(caplog):
    arguments = *qkv(), ONE_DOCUMENT, ONE_DOCUMENT, Mask()
    ops_attention._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = [attention(*arguments, rows=Rows(), implementation="fused") for _ in range(2)]
    np.testing.assert_array_equal(found[0], attention(*arguments, rows=Rows()))
    assert [record.message for record in caplog.records] == [
        "attention: the platform's kernel is left out: there is none for cpu"
    ]
