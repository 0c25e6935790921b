"""Scores of continuations against the plain log-probabilities of one row at a time."""

import jax
import numpy as np
import pytest

from jaxgpt.errors import DataError
from jaxgpt.harness import scoring
from jaxgpt.harness.scoring import Pair, score
from jaxgpt.models.decoder import DecoderConfig

V = 23
SMALL = DecoderConfig(vocab_size=V, train_length=16, num_layers=2, num_heads=2, width=16, init_std=0.5)


@pytest.fixture(scope="module")
def model():
    return jax.jit(SMALL.make)(jax.random.key(0))


def plain(model, pair, max_length):
    """The same of one pair, without batches or padding."""
    tokens = [*pair.context, *pair.continuation][-(max_length + 1) :]
    log_p = np.asarray(jax.nn.log_softmax(model(np.array([tokens[:-1]])).logits[0]))
    count = min(len(pair.continuation), max_length)
    rows, targets = np.arange(len(tokens) - 1)[-count:], np.array(tokens[1:])[-count:]
    return log_p[rows, targets].sum(), bool((log_p[rows].argmax(1) == targets).all())


def test_batches_of_unequal_pairs_are_scored_as_alone(model):
    random = np.random.default_rng(0)
    sizes = [(1, 1), (3, 2), (30, 5), (12, 9), (2, 40), (1, 20), (70, 30)]
    pairs = [Pair(random.integers(0, V, a).tolist(), random.integers(0, V, b).tolist()) for a, b in sizes]
    done = []
    found = score(model, pairs, max_length=48, batch_size=3, on_done=done.append)
    for pair, one in zip(pairs, found, strict=True):
        expected, greedy = plain(model, pair, 48)
        assert one.log_probability == pytest.approx(expected, rel=1e-5)
        assert one.greedy == greedy
    assert sum(done) == len(pairs)


def test_what_greedy_decoding_writes_is_greedy(model):
    context, written = [3, 1, 4], []
    for _ in range(4):
        written.append(int(model(np.array([[*context, *written]])).logits[0, -1].argmax()))
    other = [*written[:-1], (written[-1] + 1) % V]
    found = score(model, [Pair(context, written), Pair(context, other), Pair(context, [])], 16, 2)
    assert [one.greedy for one in found] == [True, False, True]
    assert found[2].log_probability == 0.0


def test_few_shapes_are_compiled(model, monkeypatch):
    shapes = set()
    plain_sums = scoring._sums
    monkeypatch.setattr(scoring, "_sums", lambda *a: shapes.add((a[1].shape, a[2].shape)) or plain_sums(*a))
    pairs = [Pair([1] * length, [2]) for length in range(1, 60)]
    score(model, pairs, max_length=60, batch_size=8)
    assert shapes == {((8, 32), (8, 8)), ((8, 60), (8, 8))}


def test_a_continuation_needs_a_context(model):
    with pytest.raises(DataError, match="context of at least one token"):
        score(model, [Pair([], [1])], 16, 2)
