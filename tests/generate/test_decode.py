"""Decoding with a cache against a full pass per token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.errors import ConfigError, ContextTooLong
from jaxgpt.generate.decode import generate, padded, stream
from jaxgpt.generate.filters import Sampling
from jaxgpt.nn.attention.latent import LatentConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.position.absolute import LearnedConfig
from jaxgpt.nn.position.alibi import AlibiConfig
from tests.generate.conftest import SMALL, WINDOWS, V

PROMPTS = [[1, 2, 3, 4, 5], [7], [9, 8, 7, 6, 5, 4, 3, 2, 1]]
CONFIGS = {
    "plain": SMALL,
    "windows": WINDOWS,
    "alibi": dataclasses.replace(SMALL, position=AlibiConfig()),
    "latent, experts": dataclasses.replace(
        SMALL,
        mixer=LatentConfig(kv_rank=12, plain_width=6, rotary_width=4, value_width=6),
        feedforward=MixtureConfig(experts=4, expert=GatedConfig(hidden=8)),
    ),
}


def by_full_passes(model, prompt, count):
    tokens, run = list(prompt), jax.jit(lambda m, t: m(t).logits)
    width = len(prompt) + count
    for _ in range(count):
        row = np.zeros((1, width), np.int32)
        row[0, : len(tokens)] = tokens
        tokens.append(int(run(model, row)[0, len(tokens) - 1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_greedy_decoding_equals_full_passes(make, config):
    """Prompts of unequal length in one batch, each as if it were alone."""
    model = make(config)
    found = generate(model, PROMPTS, 9, chunk=4)
    assert found == [by_full_passes(model, prompt, 9) for prompt in PROMPTS]


@pytest.mark.parametrize("chunk", [1, 5, 30])
def test_how_many_tokens_come_at_a_time_changes_none(make, chunk):
    how = Sampling(temperature=0.9, top_k=8, repetition_penalty=1.2)
    wanted = generate(make(), PROMPTS, 12, how, seed=3, chunk=12)
    assert generate(make(), PROMPTS, 12, how, seed=3, chunk=chunk) == wanted
    assert generate(make(), PROMPTS, 12, how, seed=4, chunk=chunk) != wanted
    assert all(len(row) == 12 for row in wanted)


def test_a_row_ends_with_its_stop_token(make):
    whole = generate(make(), PROMPTS, 12)
    stop = whole[0][3]
    ended = generate(make(), PROMPTS, 12, stop=[stop, 999], chunk=5)
    for row, wanted in zip(ended, whole, strict=True):
        end = wanted.index(stop) + 1 if stop in wanted else len(wanted)
        assert row == wanted[:end]


def test_decoding_stops_when_all_rows_have_ended(make):
    model = make()
    token = generate(model, PROMPTS[:1], 1)[0][0]
    parts = list(stream(model, PROMPTS[:1], 50, Sampling(temperature=0), stop=[token], chunk=4))
    assert parts == [[[token]]]


def test_the_penalty_sees_the_prompt_and_no_padding(make):
    """With an endless penalty no token comes twice, and token 0, which padding holds, may come."""
    model = make()
    how = Sampling(temperature=0.0, no_repeat_ngram=1)
    rows = generate(model, PROMPTS, 10, how)
    for row, prompt in zip(rows, PROMPTS, strict=True):
        assert len(set(row) | set(prompt)) == len(row) + len(set(prompt))
    everything = generate(model, [[5]], V - 1, how)[0]
    assert sorted([5, *everything]) == list(range(V))


def test_learned_positions_hold_as_many_tokens_as_they_can(make):
    model = make(dataclasses.replace(SMALL, position=LearnedConfig()))
    assert generate(model, [[1, 2, 3]], 13) == [by_full_passes(model, [1, 2, 3], 13)]
    with pytest.raises(ContextTooLong, match="learned has values for 16 positions, and 17 are needed"):
        generate(model, [[1, 2, 3]], 14)


def test_prompts_are_moved_to_the_right():
    tokens, pads = padded([[1, 2, 3], [4]], bucket=4)
    np.testing.assert_array_equal(tokens, [[0, 1, 2, 3], [0, 0, 0, 4]])
    np.testing.assert_array_equal(pads, [1, 3])


@pytest.mark.parametrize(("prompts", "count"), [([], 1), ([[1], []], 1), ([[1]], 0)])
def test_mistakes_are_named(make, prompts, count):
    with pytest.raises(ConfigError, match=r"prompt|max_new_tokens"):
        generate(make(), prompts, count)


def test_samples_follow_the_model(make):
    """Many rows of one prompt: the first token as often as it is likely."""
    model, many = make(), 4000
    logits = model(jnp.array([[3, 4]]))
    p = np.asarray(jax.nn.softmax(logits.logits[0, -1] / 1.5))
    drawn = np.array(generate(model, [[3, 4]] * many, 1, Sampling(temperature=1.5), seed=1))[:, 0]
    np.testing.assert_allclose(np.bincount(drawn, minlength=V) / many, p, atol=0.03)
