"""A draft changes how fast tokens come, and not which."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.generate.decode import generate
from jaxgpt.generate.filters import Sampling
from jaxgpt.generate.speculative import speculate
from tests.generate.conftest import SMALL, WINDOWS, V

PROMPT = [3, 1, 4]


@pytest.mark.parametrize("config", [SMALL, WINDOWS], ids=["plain", "windows"])
@pytest.mark.parametrize("proposals", [1, 3, 6])
def test_greedy_tokens_are_the_models_own(make, config, proposals):
    model, draft = make(config), make(config, seed=1)
    found = speculate(model, draft, PROMPT, 20, proposals=proposals)
    assert found.tokens == generate(model, [PROMPT], 20)[0]
    assert 0 <= found.accepted < found.proposed


def test_a_draft_that_is_the_model_is_always_right(make):
    found = speculate(make(), make(), PROMPT, 16, proposals=4)
    assert found.tokens == generate(make(), [PROMPT], 16)[0]
    assert found.accepted == found.proposed == 12


def test_it_ends_with_a_stop_token(make):
    whole = generate(make(), [PROMPT], 20)[0]
    stop = whole[4]
    found = speculate(make(), make(SMALL, seed=1), PROMPT, 20, stop=[stop])
    assert found.tokens == whole[: whole.index(stop) + 1]


def test_samples_are_distributed_as_without_a_draft(make):
    """The second and third token together, of many seeds: against the model's own probabilities."""
    model, draft, how = make(), make(SMALL, seed=1), Sampling(temperature=1.2, top_k=4)
    many, counts = 1500, np.zeros((V, V))
    for seed in range(many):
        _, second, third = speculate(model, draft, PROMPT, 3, how, proposals=2, seed=seed).tokens
        counts[second, third] += 1
    run = jax.jit(lambda t: how.logits(model(t).logits[:, -1], t[:, :0], t[:, :0] > 0))

    def chances(tokens):
        return np.asarray(jax.nn.softmax(run(np.array([tokens], np.int32))[0]))

    wanted, first = np.zeros((V, V)), chances(PROMPT)
    for a in np.flatnonzero(first):
        second = chances([*PROMPT, int(a)])
        for b in np.flatnonzero(second):
            wanted[b] += first[a] * second[b] * chances([*PROMPT, int(a), int(b)])
    assert wanted.sum() == pytest.approx(1.0, abs=1e-4)
    likely = wanted > 5 / many
    assert counts[wanted < 1e-9].sum() == 0, "what is ruled out never comes"
    expected = many * np.append(wanted[likely], wanted[~likely].sum())
    found = np.append(counts[likely], counts[~likely].sum())
    chi2, free = ((found - expected) ** 2 / expected).sum(), len(expected) - 1
    assert chi2 < free + 4 * np.sqrt(2 * free), (chi2, free)


def test_mistakes_are_named(make):
    with pytest.raises(ConfigError, match="vocabulary of 24 tokens, the model one of 23"):
        speculate(make(), make(dataclasses.replace(SMALL, vocab_size=24)), PROMPT, 3)
    with pytest.raises(ConfigError, match="repetition_penalty"):
        speculate(make(), make(), PROMPT, 3, Sampling(repetition_penalty=1.1))
    with pytest.raises(ConfigError, match="prompt"):
        speculate(make(), make(), [], 3)
    with pytest.raises(ConfigError, match="at least 1"):
        speculate(make(), make(), PROMPT, 0)
