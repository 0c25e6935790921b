"""Each filter against its definition, one row at a time, in numpy.

The same definitions are compared with transformers in test_transformers.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.generate import filters
from jaxgpt.generate.filters import Sampling

V = 17
LOGITS = np.random.default_rng(0).standard_normal((3, V)).astype(np.float32) * 2
HISTORY = np.array([[0, 0, 1, 2, 3, 1, 2], [5, 6, 5, 6, 5, 6, 5], [9, 9, 9, 9, 9, 9, 9]], np.int32)
SAID = np.array([[0, 0, 1, 1, 1, 1, 1], [1] * 7, [1] * 7], bool)


def softmax(x):
    e = np.exp(x - x[np.isfinite(x)].max())
    return e / e.sum()


def kept(row):
    return set(np.flatnonzero(np.isfinite(np.asarray(row))).tolist())


def by_hand(name, value, x):
    p = softmax(x.astype(np.float64))
    surprise = -np.log(p)
    entropy = (p * surprise).sum()
    order = np.argsort(-x)
    if name == "top_k":
        return set(order[:value].tolist())
    if name == "top_p":
        return {int(i) for n, i in enumerate(order) if n == 0 or p[order[:n]].sum() < value}
    if name == "min_p":
        return set(np.flatnonzero(p >= value * p.max()).tolist())
    if name == "typical_p":
        near = np.argsort(np.abs(surprise - entropy))
        return {int(i) for n, i in enumerate(near) if n == 0 or p[near[:n]].sum() < value}
    bound = value if name == "epsilon" else min(value, np.sqrt(value) * np.exp(-entropy))
    return set(np.flatnonzero(p >= bound).tolist()) | {int(order[0])}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("top_k", k) for k in (1, 4, 99)],
        *[(name, v) for name in ("top_p", "typical_p") for v in (0.1, 0.6, 0.95)],
        *[("min_p", v) for v in (0.05, 0.5, 1.0)],
        *[(name, v) for name in ("epsilon", "eta") for v in (0.01, 0.1, 0.9)],
    ],
)
def test_filters_keep_what_their_definition_says(name, value):
    found = getattr(filters, name)(jnp.asarray(LOGITS), value)
    for row, x in zip(found, LOGITS, strict=True):
        assert kept(row) == by_hand(name, value, x)
        np.testing.assert_array_equal(np.asarray(row)[list(kept(row))], x[list(kept(row))])


def test_equal_tokens_stay_together():
    x = jnp.array([[1.0, 3.0, 3.0, 3.0, 0.0]])
    assert kept(filters.top_k(x, 2)[0]) == {1, 2, 3}
    assert kept(filters.typical_p(x, 0.2)[0]) == {1, 2, 3}
    assert len(kept(filters.top_p(x, 0.5)[0])) == 2


def test_tokens_that_were_said_are_less_likely():
    found = np.asarray(filters.repetition_penalty(jnp.asarray(LOGITS), 1.3, HISTORY, SAID))
    for row, x, history, said in zip(found, LOGITS, HISTORY, SAID, strict=True):
        wanted = x.copy()
        for token in set(history[said].tolist()):
            wanted[token] = x[token] / 1.3 if x[token] > 0 else x[token] * 1.3
        np.testing.assert_allclose(row, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("n", "banned"),
    [
        (1, [{1, 2, 3}, {5, 6}, {9}]),
        (2, [{3}, {6}, {9}]),
        (3, [{3}, {6}, {9}]),
        (5, [set(), {6}, {9}]),
        (7, [set(), set(), {9}]),
        (8, [set(), set(), set()]),
    ],
)
def test_no_run_of_tokens_comes_twice(n, banned):
    """Row 0 has two tokens of padding, which are no part of any run."""
    found = filters.no_repeat_ngram(jnp.asarray(LOGITS), n, HISTORY, SAID)
    for row, wanted in zip(found, banned, strict=True):
        assert kept(row) == set(range(V)) - wanted


def test_fields_act_in_their_order():
    how = Sampling(repetition_penalty=1.2, temperature=0.7, top_k=9, top_p=0.8, min_p=0.05)
    x = filters.repetition_penalty(jnp.asarray(LOGITS), 1.2, HISTORY, SAID) / 0.7
    x = filters.min_p(filters.top_p(filters.top_k(x, 9), 0.8), 0.05)
    np.testing.assert_allclose(how.logits(jnp.asarray(LOGITS), HISTORY, SAID), x, rtol=1e-6)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    how, many = Sampling(temperature=0.8, top_k=5), 20_000
    x = jnp.broadcast_to(jnp.asarray(LOGITS[:1]), (many, V))
    none = jnp.zeros((many, 0), jnp.int32)
    drawn = np.asarray(how.draw(x, none, none.astype(bool), jax.random.key(0)))
    wanted = softmax(np.asarray(how.logits(x[:1], none[:1], none[:1].astype(bool)))[0])
    np.testing.assert_allclose(np.bincount(drawn, minlength=V) / many, wanted, atol=0.015)


def test_greedy_takes_the_likeliest():
    none = jnp.zeros((3, 0), jnp.int32)
    drawn = Sampling(temperature=0, top_k=3).draw(jnp.asarray(LOGITS), none, none.astype(bool), jax.random.key(0))
    np.testing.assert_array_equal(drawn, LOGITS.argmax(-1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"top_k": 0},
        {"top_p": 0},
        {"min_p": 1.5},
        {"typical_p": -0.1},
        {"repetition_penalty": 0},
        {"no_repeat_ngram": -1},
    ],
    ids=str,
)
def test_mistakes_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
