"""The naive form is the definition; the others must equal it, in values and in gradients.

Shapes: M tokens, D width, E experts, K experts per token, F hidden width.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.ops import experts as module
from jaxgpt.ops.experts import ByExpert, ByToken, by_expert, dropless, every, gather, ragged, with_capacity

M, D, E, K, F = 11, 6, 5, 2, 4
RNG = np.random.default_rng(0)
WEIGHTS = {
    "up": jnp.asarray(RNG.standard_normal((E, D, F)), jnp.float32),
    "up_bias": jnp.asarray(RNG.standard_normal((E, F)), jnp.float32),
    "down": jnp.asarray(RNG.standard_normal((E, F, D)), jnp.float32),
}
X = jnp.asarray(RNG.standard_normal((M, D)), jnp.float32)
CHOICE = ByToken(
    jnp.asarray([RNG.permutation(4)[:K] for _ in range(M)], jnp.int32),  # the last expert has no token
    jnp.asarray(RNG.random((M, K)), jnp.float32),
)
ALL = jnp.ones((M,), bool)


def layer(weights):
    def through(multiply, x):
        hidden = jnp.tanh(multiply(x, weights["up"], weights["up_bias"]))
        return multiply(hidden, weights["down"], None)

    return through


def by_hand(x, choice, weights):
    x, weights = np.asarray(x, np.float64), {name: np.asarray(w, np.float64) for name, w in weights.items()}
    y = np.zeros((M, D))
    for m, k in np.ndindex(M, K):
        e = int(choice.experts_MK[m, k])
        hidden = np.tanh(x[m] @ weights["up"][e] + weights["up_bias"][e])
        y[m] += float(choice.weights_MK[m, k]) * (hidden @ weights["down"][e])
    return y


FORMS = {
    "ragged": lambda f, x, c: ragged(f, x, c, E),
    "gather": gather,
    "capacity for all": lambda f, x, c: by_expert(f, x, with_capacity(c, E, M * K, ALL)[0]),
}


def test_the_naive_form_is_the_sum():
    y = every(layer(WEIGHTS), X, CHOICE, E)
    np.testing.assert_allclose(y, by_hand(X, CHOICE, WEIGHTS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_values_and_gradients_equal_the_naive_form(form):
    pull = jnp.asarray(np.random.default_rng(1).standard_normal((M, D)), jnp.float32)

    def both(form):
        def out(weights, x, shares):
            y = form(layer(weights), x, ByToken(CHOICE.experts_MK, shares))
            return (y * pull).sum(), y

        return jax.jit(jax.value_and_grad(out, argnums=(0, 1, 2), has_aux=True))(WEIGHTS, X, CHOICE.weights_MK)

    ((_, wanted), wanted_gradients), ((_, y), gradients) = both(lambda f, x, c: every(f, x, c, E)), both(form)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted_gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_sizes_decide_which_form_runs(monkeypatch):
    ran = []
    for name in ("every", "ragged", "gather"):
        monkeypatch.setattr(module, name, lambda *_, _name=name: ran.append(_name))
    for tokens, experts, asked in ((1, 8, None), (4, 8, None), (5, 8, None), (500, 64, None), (500, 8, "ragged")):
        choice = ByToken(jnp.zeros((tokens, 2), jnp.int32), jnp.zeros((tokens, 2)))
        dropless(layer(WEIGHTS), jnp.zeros((tokens, D)), choice, experts, asked)
    assert ran == ["gather", "gather", "every", "ragged", "ragged"]


@pytest.mark.parametrize("places", [1, 2, 3])
def test_capacity_drops_who_comes_too_late(places):
    """First choices in the order of the tokens, then second ones: counted by hand."""
    counts = np.ones(M, bool)
    counts[[2, 7]] = False  # padding
    choice, kept = with_capacity(CHOICE, E, places, jnp.asarray(counts))
    taken, wanted = dict.fromkeys(range(E), 0), np.zeros((M, K), bool)
    for k in range(K):
        for m in range(M):
            e = int(CHOICE.experts_MK[m, k])
            if counts[m] and taken[e] < places:
                taken[e] += 1
                wanted[m, k] = True
    np.testing.assert_array_equal(kept, wanted)
    assert choice.tokens_EC.shape == (E, places)
    np.testing.assert_array_equal((np.asarray(choice.weights_EC) > 0).sum(1), list(taken.values()))
    y = by_expert(layer(WEIGHTS), X, choice)
    only_kept = ByToken(CHOICE.experts_MK, jnp.where(kept, CHOICE.weights_MK, 0.0))
    np.testing.assert_allclose(y, by_hand(X, only_kept, WEIGHTS), rtol=1e-5, atol=1e-5)


def test_experts_may_share_a_token():
    choice = ByExpert(jnp.zeros((E, 1), jnp.int32), jnp.ones((E, 1)))
    y = by_expert(layer(WEIGHTS), X, choice)
    every_one = ByToken(jnp.broadcast_to(jnp.arange(E, dtype=jnp.int32)[None], (M, E)), jnp.ones((M, E)))
    np.testing.assert_allclose(y[0], every(layer(WEIGHTS), X, every_one, E)[0], rtol=1e-5, atol=1e-5)
    assert not np.asarray(y[1:]).any()


def test_bfloat16_stays_near_float32():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (WEIGHTS, X))
    wanted = by_hand(X, CHOICE, WEIGHTS)
    for form in (lambda f, x, c: every(f, x, c, E), *FORMS.values()):
        y = form(layer(half[0]), half[1], CHOICE)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_allclose(y.astype(jnp.float32), wanted, atol=0.1)

        def loss(weights, x, form=form):
            return form(layer(weights), x, CHOICE).astype(jnp.float32).sum()

        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(*half)  # compiled: not every backend has every product
        assert all(jnp.isfinite(one.astype(jnp.float32)).all() for one in jax.tree.leaves(gradients))
