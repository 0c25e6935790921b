from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from jaxgpt.config import decode, encode
from jaxgpt.errors import ConfigError, DataError
from jaxgpt.evaluate.ngram import STRETCH, NgramConfig, discounts


class Naive:
    """The same model from dictionaries of tuples, one probability at a time: the twin that tests trust."""

    def __init__(self, tokens: list[int], order: int, vocab_size: int):
        self.order, self.vocab_size = order, vocab_size
        self.vocabulary = range(vocab_size)
        self.occurrences, self.continuations = {}, {}
        for length in range(1, order + 2):
            grams = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
            self.occurrences[length] = Counter(grams)
            self.continuations[length - 1] = Counter(gram[1:] for gram in set(grams))

    def probability(self, history: tuple[int, ...], token: int) -> float:
        history = history[-(self.order - 1) :] if self.order > 1 else ()
        return self._mixed(history, token, len(history))

    def _mixed(self, history: tuple[int, ...], token: int, longest: int) -> float:
        lower = self._mixed(history[1:], token, longest) if history else 1.0 / self.vocab_size
        counts = (self.occurrences if len(history) == longest else self.continuations)[len(history) + 1]
        discount = self._discounts(counts.values())
        following = [counts[(*history, other)] for other in self.vocabulary]
        if sum(following) == 0:
            return lower
        removed = sum(discount[min(count, 3)] for count in following)
        count = counts[(*history, token)]
        return (count - discount[min(count, 3)] + removed * lower) / sum(following)

    @staticmethod
    def _discounts(counts) -> list[float]:
        of = Counter(counts)
        if all(of[count] for count in (1, 2, 3, 4)):
            y = of[1] / (of[1] + 2 * of[2])
            values = [0.0, *(count - (count + 1) * y * of[count + 1] / of[count] for count in (1, 2, 3))]
            if min(values[1:]) > 0:
                return values
        return [0.0, 0.5, 1.0, 1.5]


def skewed_text(length: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Tokens with repeated phrases, so that every order has counts of all sizes."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, vocab_size + 1)
    phrases = [rng.choice(vocab_size, size=rng.integers(2, 8), p=weights / weights.sum()) for _ in range(20)]
    text = np.concatenate([phrases[min(rng.geometric(0.15), 20) - 1] for _ in range(length)])
    return text[:length]


@pytest.mark.parametrize(
    ("length", "vocab_size", "order"), [(900, 7, 5), (400, 30, 3), (60, 5, 2), (50, 4, 1), (5, 3, 5)]
)
def test_matches_the_naive_twin(length, vocab_size, order):
    tokens = skewed_text(length, vocab_size)
    model = NgramConfig(order=order).fit(tokens, vocab_size)
    naive = Naive(tokens.tolist(), order, vocab_size)
    rows = np.random.default_rng(1).integers(0, vocab_size, (4, 13))
    rows[0] = skewed_text(13, vocab_size, seed=0)[:13] if length > 13 else rows[0]
    got = model.probabilities(rows[:, :-1], rows[:, 1:])
    expected = [[naive.probability(tuple(row[: t + 1]), row[t + 1]) for t in range(12)] for row in rows.tolist()]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_probabilities_sum_to_one_after_any_history(order):
    vocab_size = 11
    model = NgramConfig(order=order).fit(skewed_text(2000, vocab_size), vocab_size)
    history = np.random.default_rng(2).integers(0, vocab_size, (30, 6))
    history[:15] = skewed_text(90, vocab_size).reshape(15, 6)
    total = np.zeros((30, 6))
    for token in range(vocab_size):
        total += model.probabilities(history, np.full_like(history, token))
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_last_targets_alone_and_shorter_rows(order):
    model = NgramConfig(order=order).fit(skewed_text(2000, 9), 9)
    rows = skewed_text(240, 9, seed=3).reshape(8, 30)
    inputs, targets = rows[:, :-1], rows[:, 1:]
    full = model(inputs, targets)
    assert full.dtype == np.float32
    for last in (1, 3, 27, 29):
        np.testing.assert_array_equal(model(inputs, targets, last), full[:, -last:])
    np.testing.assert_array_equal(model(inputs[:, :10], targets[:, :10]), full[:, :10])  # nothing from the future
    np.testing.assert_array_equal(model(inputs[:, 10:], targets[:, 10:])[:, order:], full[:, 10 + order :])


def test_learns_and_never_gives_zero():
    pattern = np.tile(np.arange(6), 50)
    model = NgramConfig().fit(pattern, 10)
    assert model(pattern[None, :-1], pattern[None, 1:])[0, 5:].max() < 0.1
    unseen = np.array([[7, 8, 9, 7, 0, 2]])
    assert np.isfinite(model(unseen[:, :-1], unseen[:, 1:])).all()


def test_a_vocabulary_whose_fifth_power_overflows_is_exact():
    vocab_size = 200_000
    tokens = np.array([199_999, 5, 199_999, 5, 123_456, 5, 199_999, 5, 7])
    naive = Naive(tokens.tolist(), 5, vocab_size)
    naive.vocabulary = sorted(set(tokens.tolist()))  # all others have count zero
    model = NgramConfig().fit(tokens, vocab_size)
    got = model.probabilities(tokens[None, :-1], tokens[None, 1:])[0]
    expected = [naive.probability(tuple(tokens[: t + 1].tolist()), tokens[t + 1]) for t in range(8)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


def test_part_of_the_text_is_taken_in_even_stretches():
    tokens = np.arange(10 * STRETCH) // STRETCH
    part = NgramConfig(order=1, max_tokens=3 * STRETCH).fit(tokens, 10)
    assert part.num_tokens == 3 * STRETCH
    every_token = np.arange(10)[None]
    shares = part.probabilities(every_token, every_token)[0]
    np.testing.assert_allclose(shares, [1 / 3, 0, 0, 0, 1 / 6, 1 / 6, 0, 0, 0, 1 / 3], atol=1e-3)
    assert NgramConfig(max_tokens=10**9).fit(tokens, 10).num_tokens == len(tokens)
    assert NgramConfig(max_tokens=10).fit(tokens, 10).num_tokens == 10


def test_discounts_follow_chen_and_goodman_or_fall_back():
    counts = np.repeat([1, 2, 3, 4, 9], [40, 20, 10, 5, 3])
    y = 40 / 80
    assert discounts(counts).tolist() == pytest.approx(
        [0, 1 - 2 * y * 20 / 40, 2 - 3 * y * 10 / 20, 3 - 4 * y * 5 / 10]
    )
    assert discounts(np.array([1, 2, 3])).tolist() == [0, 0.5, 1, 1.5]  # no count of four
    assert discounts(np.repeat([1, 2, 3, 4], [9, 1, 9, 1])).tolist() == [0, 0.5, 1, 1.5]  # would be negative


def test_wrong_tokens_are_refused():
    with pytest.raises(DataError, match="5-gram baseline needs at least 5 training tokens, and there are 4"):
        NgramConfig().fit(np.array([0, 1, 2, 3]), 5)
    with pytest.raises(DataError, match="0 to 5 do not fit a vocabulary of 5"):
        NgramConfig(order=2).fit(np.array([0, 5]), 5)


def test_configuration():
    config = NgramConfig(order=3, max_tokens=100)
    assert decode(NgramConfig, encode(config)) == config
    with pytest.raises(ConfigError, match=r"ngram: order and max_tokens"):
        decode(NgramConfig, {"order": 0}, "ngram")
