from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.attention.fox import ForgettingConfig
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerContext
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import PositionDims, PositionEncoding, Positions

B, T, WIDTH, HEADS, HEAD = 2, 7, 16, 2, 8
DIMS = LayerDims(WIDTH, HEADS, HEADS, HEAD, False, 0.0, 0.5, 0.5)
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, WIDTH)), jnp.float32)
NOPE = PositionEncoding()


def make(**fields):
    return ForgettingConfig(**fields).make(DIMS, jax.random.key(1))


def context(encoding=NOPE, positions=None, at=None):
    return MixerContext(Positions.of(X) if positions is None else positions, encoding, Mask(), at)


@jax.jit
def run(module, x, context, state=None):
    return module(x, context, state)


def by_formula(module, x, bias_NTS=0.0):
    """Float64: the scores of query i and key j get the sum of ln f over j + 1 .. i, one by one."""
    weights = (module.query, module.key, module.value, module.output, module.gate)
    q, k, v, out, gate = (np.asarray(p[...], np.float64) for p in weights)
    x = np.asarray(x, np.float64)
    q, k, v = (np.einsum("TD,DNH->NTH", x, weight) for weight in (q, k, v))
    f = 1 / (1 + np.exp(-(x @ gate + np.asarray(module.gate_bias[...]))))
    count = len(x)
    forgotten = np.zeros((HEADS, count, count))
    for i in range(count):
        for j in range(i):
            forgotten[:, i, j] = np.log(f[j + 1 : i + 1]).sum(0)
    scores = np.einsum("NTH,NSH->NTS", q, k) / np.sqrt(HEAD) + forgotten + bias_NTS
    scores = np.where(np.tril(np.ones((count, count), bool)), scores, -np.inf)
    attended = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("NTS,NSH,NHD->TD", attended / attended.sum(-1, keepdims=True), v, out)


@pytest.mark.parametrize("implementation", ["naive", "dense", "blockwise"])
def test_is_the_formula(implementation):
    module = make(implementation=implementation, gate_bias=0.7)
    y, _, aux = run(module, X, context())
    for row in range(B):
        np.testing.assert_allclose(y[row], by_formula(module, X[row]), rtol=1e-4, atol=1e-5)
    assert aux == {}


def test_bias_of_an_encoding_is_added():
    alibi = AlibiConfig().make(PositionDims(WIDTH, HEAD, HEADS, T), jax.random.key(0))
    distance = np.arange(T)[:, None] - np.arange(T)
    wanted = by_formula(make(), X[0], -np.array(alibi.slopes)[:, None, None] * np.abs(distance))
    np.testing.assert_allclose(run(make(), X, context(alibi))[0][0], wanted, rtol=1e-4, atol=1e-5)


def test_gates_without_content_are_slopes():
    """f = sigmoid(b) everywhere: n ln f, ALiBi with one slope; f = 1 forgets nothing."""
    for gate_bias, slope in ((0.0, np.log(2)), (40.0, 0.0)):
        module = make(gate_bias=gate_bias)
        module.gate[...] = 0 * module.gate[...]
        sums = module.extra(X, context(), None)
        np.testing.assert_allclose(sums[0, :, 0], -slope * np.arange(1, T + 1), rtol=1e-6, atol=1e-15)


def test_sums_go_on_in_the_cache():
    """In parts of several sizes, in float32 whatever the activations are."""
    module = make()
    for dtype in (jnp.float32, jnp.bfloat16):
        x = X.astype(dtype)
        whole = module.extra(x, context(), None)
        state = module.init_state(B, T + 1, dtype)
        for begin, end in ((0, 3), (3, 4), (4, 7)):
            positions = jax.tree.map(lambda a, b=begin, e=end: a[:, b:e], Positions.of(X))
            _, state, _ = run(module, x[:, begin:end], context(positions=positions, at=jnp.int32(begin)), state)
        assert whole.dtype == state.entries["extra"].dtype == jnp.float32
        np.testing.assert_allclose(state.entries["extra"][:, :T], whole, rtol=1e-5, atol=1e-6)
