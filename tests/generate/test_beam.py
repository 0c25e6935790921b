"""Beam search against all continuations there are, and its bookkeeping."""

import itertools

import jax
import numpy as np
import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.generate.beam import BeamSearch, beam_search
from jaxgpt.generate.decode import generate
from tests.generate.conftest import V

PROMPT = [3, 1, 4]


def log_probability(model, prompt, *continuations):
    """Of every continuation, all of one length."""
    rows = np.array([[*prompt, *tokens] for tokens in continuations], np.int32)
    log_p = np.asarray(jax.nn.log_softmax(jax.jit(lambda rows: model(rows).logits)(rows)))
    steps = log_p[:, len(prompt) - 1 : -1]
    return np.take_along_axis(steps, np.array(continuations)[:, :, None], axis=2).sum(axis=(1, 2))


def test_enough_beams_find_the_best_of_all(make):
    model, length = make(), 2
    pairs = list(itertools.product(range(V), repeat=length))
    scores = dict(zip(pairs, log_probability(model, PROMPT, *pairs), strict=True))
    best = sorted(scores, key=lambda pair: -scores[pair])[:3]
    (found,) = beam_search(model, [PROMPT], length, BeamSearch(beams=V, length_penalty=0.0))
    assert [tuple(one.tokens) for one in found[:3]] == best
    np.testing.assert_allclose([one.score for one in found[:3]], [scores[pair] for pair in best], rtol=1e-4)


def test_one_beam_is_greedy(make):
    (found,) = beam_search(make(), [PROMPT], 8, BeamSearch(beams=1))
    assert found[0].tokens == generate(make(), [PROMPT], 8)[0]
    assert found[0].score == pytest.approx(log_probability(make(), PROMPT, found[0].tokens) / 8, rel=1e-4)


def test_rows_do_not_meet(make):
    prompts = [PROMPT, [5], [2, 2, 2, 2, 2, 2]]
    together = beam_search(make(), prompts, 6, BeamSearch(3), stop=[7])
    for row, prompt in zip(together, prompts, strict=True):
        (alone,) = beam_search(make(), [prompt], 6, BeamSearch(3), stop=[7])
        assert [one.tokens for one in row] == [one.tokens for one in alone]
        np.testing.assert_allclose([one.score for one in row], [one.score for one in alone], rtol=1e-4)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_results_are_ordered_scored_and_end_where_they_should(make, early_stopping):
    model = make()
    stop = generate(model, [PROMPT], 3)[0][-1]
    (found,) = beam_search(model, [PROMPT], 7, BeamSearch(4, 1.0, early_stopping), stop=[stop])
    assert len(found) == 4
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert stop not in one.tokens[:-1]
        assert one.tokens[-1] == stop or len(one.tokens) == 7
        wanted = log_probability(model, PROMPT, one.tokens) / len(one.tokens)
        assert one.score == pytest.approx(wanted, rel=1e-3)


def test_mistakes_are_named(make):
    with pytest.raises(ValueError, match="beams: 0"):
        BeamSearch(0)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        beam_search(make(), [PROMPT], 0)
    with pytest.raises(ConfigError, match="prompt"):
        beam_search(make(), [[]], 1)
