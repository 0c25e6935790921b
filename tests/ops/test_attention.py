"""The naive form is the definition; the others must equal it, in values and in gradients.

Shapes: B batch, T query tokens, S key tokens, N heads, K key-value heads, H head width.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.mixer.base import Mask
from jaxgpt.nn.position.base import Positions
from jaxgpt.ops import attention as module
from jaxgpt.ops.attention import Dropout, Softmax, attention, blockwise, dense, naive

B, N, H = 2, 4, 8
small_blocks = functools.partial(blockwise, block=8)
FORMS = {"naive": naive, "dense": dense, "blockwise": small_blocks}
each = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture(params=["dense", "dense in pieces", "dense in groups", "blockwise"])
def fast(request, monkeypatch):
    """What must equal the naive form; `pieces` and `groups` are one sequence each, in causal slices of queries."""
    if request.param in FORMS:
        return FORMS[request.param]
    if request.param == "dense in pieces":
        monkeypatch.setattr(module, "PIECE_BYTES", 1)
    monkeypatch.setattr(module, "GROUP_BYTES", 1)
    monkeypatch.setattr(module, "CAUSAL_BLOCK", 5)
    return functools.partial(dense, causal=True)


def draw(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def qkv(length, kv_heads=N, keys=None, dtype=jnp.float32):
    keys = keys or length
    return (
        draw(0, B, length, N, H, dtype=dtype),
        draw(1, B, keys, kv_heads, H, dtype=dtype),
        draw(2, B, keys, kv_heads, H, dtype=dtype),
    )


def plain(length):
    return Positions.of(jnp.zeros((B, length)))


def packed():
    """20 tokens: two documents and padding in the first row, one document in the second."""
    return Positions.packed(jnp.array([[1] * 7 + [2] * 9 + [0] * 4, [1] * 20]))


def shared_bias(q, k):
    """[1, N, T, S] where positions are shared, else [B, N, T, S]."""
    distance = (q.position[:, :, None] - k.position[:, None, :]).astype(jnp.float32)
    return -jnp.arange(1.0, N + 1)[None, :, None, None] * 0.3 * jnp.abs(distance)[:, None]


CASES = {
    "heads": (4, plain(20), Mask(), None),
    "grouped, whole blocks": (2, plain(24), Mask(window=5), None),
    "multi-query, bias of one row": (1, plain(20), Mask(), shared_bias),
    "documents": (4, packed(), Mask(), None),
    "window of documents, bias of each row": (2, packed(), Mask(window=3), shared_bias),
}


def value_and_gradients(form, name):
    """Output [B, T, N, H] with padded rows 0, whether they were finite, and gradients of q, k and v."""
    kv_heads, where, mask, bias = CASES[name]
    arrays = qkv(where.position.shape[1], kv_heads)
    real, pull = (where.segment > 0)[:, :, None, None], draw(3, *arrays[0].shape)

    @jax.jit
    def both(q, k, v):
        def out(q, k, v):
            y = form(q, k, v, where, where, mask, bias)
            clean = jnp.where(real, y, 0.0)
            return (clean * pull).sum(), (clean, jnp.isfinite(y).all())

        return jax.value_and_grad(out, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    (_, (y, finite)), gradients = both(*arrays)
    return y, finite, gradients


@functools.cache
def reference(name):
    return value_and_gradients(naive, name)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_the_naive_form(fast, name):
    y, finite, gradients = value_and_gradients(fast, name)
    wanted, _, wanted_gradients = reference(name)
    assert finite, "padded rows too"
    np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=2e-5)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def test_the_naive_form_is_the_formula():
    """Equation 1 of arXiv:1706.03762, in numpy, one head and one query at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in qkv(6, 2))
    y = np.asarray(naive(*map(jnp.float32, (q, k, v)), plain(6), plain(6), Mask(window=4), shared_bias))
    for b, t, n in np.ndindex(B, 6, N):
        seen = range(max(0, t - 3), t + 1)
        scores = [q[b, t, n] @ k[b, s, n // 2] / np.sqrt(H) - 0.3 * (n + 1) * (t - s) for s in seen]
        weights = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(y[b, t, n], weights @ v[b, seen, n // 2], rtol=1e-5, atol=1e-5)


@each
def test_few_queries_over_a_cache_equal_the_last_rows(form):
    q, k, v = qkv(20, 2)
    where = plain(20)
    last = jax.tree.map(lambda a: a[:, 17:], where)
    wanted = jax.jit(lambda *arrays: naive(*arrays, where, where, Mask(), shared_bias)[:, 17:])(q, k, v)
    pad = ((0, 0), (0, 3), (0, 0), (0, 0))  # empty places of the cache
    room = jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, 3))), where)
    y = form(
        q[:, 17:],
        jnp.pad(k, pad, constant_values=9.0),
        jnp.pad(v, pad, constant_values=9.0),
        last,
        room,
        Mask(),
        shared_bias,
    )
    np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=2e-5)


def test_no_query_reaches_a_later_key(fast):
    q, k, v = qkv(20, 2)

    def of_row_9(k, v):
        return fast(q, k, v, plain(20), plain(20), Mask())[:, 9].sum()

    for gradient in jax.jit(jax.grad(of_row_9, argnums=(0, 1)))(k, v):
        reach = np.abs(gradient).sum((0, 2, 3))
        assert np.all(reach[10:] == 0)
        assert np.all(reach[:10] > 0)


def test_bfloat16_stays_near_float32(fast):
    half = qkv(20, 2, dtype=jnp.bfloat16)
    run = functools.partial(jax.jit, static_argnums=0)(
        lambda form, *x: form(*x, plain(20), plain(20), Mask(), shared_bias)
    )
    y = run(fast, *half)
    assert y.dtype == jnp.bfloat16
    wanted = run(naive, *(x.astype(jnp.float32) for x in half))
    np.testing.assert_allclose(y.astype(jnp.float32), wanted, atol=0.03)


@each
def test_dropout_keeps_the_mean_and_drops_the_share(form):
    """With every value 1 an output is the sum of the kept weights over 1 - rate, whose expectation is 1."""
    q, k, v = (jnp.zeros((64, 12, N, H)), jnp.zeros((64, 12, N, H)), jnp.ones((64, 12, N, H)))
    where, rate = plain(12), 0.25
    run = jax.jit(lambda q, k, v: form(q, k, v, where, where, Mask(), None, Dropout(rate, jax.random.key(3)))[..., 0])
    y = run(q, k, v)
    assert abs(float(y.mean()) - 1) < 0.02
    first = np.asarray(y[:, 0])  # the first token sees itself alone: dropped or scaled up
    assert set(np.unique(first)) <= {0.0, np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - rate) < 0.1
    np.testing.assert_array_equal(y, run(q, k, v))


def test_dropout_of_nothing_is_no_dropout():
    arrays, where = qkv(6), plain(6)
    y = dense(*arrays, where, where, Mask(), None, Dropout(0.0, jax.random.key(0)))
    np.testing.assert_array_equal(y, dense(*arrays, where, where, Mask()))


def test_length_decides_which_form_runs(monkeypatch):
    ran = []
    for name in ("naive", "dense", "blockwise"):
        monkeypatch.setattr(module, name, lambda *_, _name=name, **__: ran.append(_name))
    monkeypatch.setattr(module, "DENSE_UP_TO", 10)
    for queries, keys, asked in ((10, 10, None), (11, 11, None), (1, 500, None), (3, 3, "blockwise"), (3, 3, "naive")):
        q, k, v = jnp.zeros((1, queries, 1, 2)), jnp.zeros((1, keys, 1, 2)), jnp.zeros((1, keys, 1, 2))
        attention(q, k, v, None, None, Mask(), implementation=asked)
    assert ran == ["dense", "blockwise", "dense", "blockwise", "naive"]


def test_pieces_may_differ_in_size(monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 1)
    q, k, v = (draw(seed, 6, 8, N, H) for seed in range(3))
    where = Positions.of(jnp.zeros((6, 8)))
    arguments = q, k, v, where, where, Mask()
    np.testing.assert_allclose(dense(*arguments, causal=True), naive(*arguments), atol=1e-5)


def test_sequences_go_through_in_equal_groups_that_fit(monkeypatch):
    monkeypatch.setattr(module, "GROUP_BYTES", 100)
    assert [module._group_rows(12, size) for size in (1, 10, 20, 25, 100, 1000)] == [12, 6, 4, 4, 1, 1]
    assert module._slice_ends(63) == [63]
    assert module._slice_ends(130) == [65, 130]
    assert module._slice_ends(10_000) == [2500, 5000, 7500, 10_000]


def test_blockwise_memory_grows_with_length_not_its_square():
    """What XLA sets aside for the gradient, in blocks of 32: far less than one matrix of scores, and twice as much for
    twice the tokens."""

    def memory(form, length):
        q, k, v = (jax.ShapeDtypeStruct((1, length, 1, 4), jnp.float32) for _ in range(3))
        where = plain(length)
        gradient = jax.grad(lambda q, k, v: form(q, k, v, where, where, Mask()).sum(), argnums=(0, 1, 2))
        return jax.jit(gradient).lower(q, k, v).compile().memory_analysis().temp_size_in_bytes

    blocks = functools.partial(blockwise, block=32)
    assert memory(blocks, 2048) < 2.2 * memory(blocks, 1024) < 2.2 * 1024 * 1024 * 4 / 8
    assert memory(dense, 1024) > 1024 * 1024 * 4


SCORING = {
    "scale": Softmax(scale=0.9),
    "soft cap": Softmax(soft_cap=1.5),
    "sinks": Softmax(sinks_N=jnp.array([-1.0, 0.0, 1.0, 3.0])),
    "all": Softmax(0.5, 2.0, jnp.array([3.0, 0.0, -2.0, 1.0])),
}


@pytest.mark.parametrize("scoring", SCORING.values(), ids=SCORING)
def test_scale_cap_and_sinks_equal_the_naive_form(fast, scoring):
    """Values, half as wide as keys, and gradients, those of the sinks too; packed, with a bias."""
    q, k, v = qkv(20, 2)
    v, where, pull = v[..., : H // 2], packed(), draw(3, B, 20, N, H // 2)
    real = (where.segment > 0)[:, :, None, None]

    def both(form):
        def out(q, k, v, sinks):
            y = form(q, k, v, where, where, Mask(), shared_bias, softmax=scoring._replace(sinks_N=sinks))
            return (jnp.where(real, y, 0.0) * pull).sum(), y

        return jax.jit(jax.value_and_grad(out, argnums=(0, 1, 2, 3), has_aux=True))(q, k, v, scoring.sinks_N)

    ((_, wanted), wanted_gradients), ((_, y), gradients) = both(naive), both(fast)
    np.testing.assert_allclose(jnp.where(real, y, 0.0), jnp.where(real, wanted, 0.0), rtol=2e-5, atol=2e-5)
    assert jnp.isfinite(y).all()
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted_gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def test_scale_cap_and_sinks_are_their_formulas():
    """One head and one query at a time, in numpy: c tanh(s q.k / c) + bias, and exp(sink) in the sum."""
    q, k, v = (np.asarray(x, np.float64) for x in qkv(6, 2))
    scoring = SCORING["all"]
    y = np.asarray(
        naive(*map(jnp.float32, (q, k, v)), plain(6), plain(6), Mask(window=4), shared_bias, softmax=scoring)
    )
    for b, t, n in np.ndindex(B, 6, N):
        seen = range(max(0, t - 3), t + 1)
        scores = [2 * np.tanh(0.5 * q[b, t, n] @ k[b, s, n // 2] / 2) - 0.3 * (n + 1) * (t - s) for s in seen]
        weights = np.exp(scores) / (np.exp(scores).sum() + np.exp(float(scoring.sinks_N[n])))
        np.testing.assert_allclose(y[b, t, n], weights @ v[b, seen, n // 2], rtol=1e-5, atol=1e-5)
