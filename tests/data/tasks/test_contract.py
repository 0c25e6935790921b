"""What every synthetic task promises; a new one is held to it by being registered. Answers are checked one by one."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgpt import registry
from jaxgpt.config import decode, encode
from jaxgpt.data.sources.task import TaskDataConfig
from jaxgpt.data.tasks.base import TaskConfig, example_tokens, letters
from jaxgpt.data.tokenizers.symbols import SymbolsConfig

KINDS = registry.kinds(TaskConfig)
MORE = {
    "copy-repeated": {"type": "copy", "tokens": "repeated"},
    "addition-hints": {"type": "addition", "hints": 40, "reversed": True},
    "mqar-apart": {"type": "mqar", "pairs": 4},
    "mqar-gap": {"type": "mqar", "gap": 7},
}


@pytest.fixture(params=[*KINDS, *MORE])
def task(request) -> TaskConfig:
    return decode(TaskConfig, MORE.get(request.param, request.param))


def drawn(task, length, seed=0):
    return task.sample(np.random.default_rng(seed), length)


def test_those_of_the_field_exist():
    named = "addition copy induction mqar parity passkey reverse selective_copy sorting summation"
    assert set(KINDS) >= set(named.split())


def test_configuration_round_trips(task):
    assert decode(TaskConfig, encode(task)) == task


def test_symbols_make_a_vocabulary(task):
    symbols = task.symbols()
    tokenizer = SymbolsConfig(symbols).train([])
    assert tokenizer.vocab_size == len(symbols) + 1
    assert tokenizer.decode(range(1, tokenizer.vocab_size)) == " ".join(symbols)


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_examples_are_prompts_and_answers_in_the_vocabulary(task, length):
    parts = drawn(task, length)
    assert len(parts) % 2 == 0
    assert all(len(part) for part in parts)
    numbers = [number for part in parts for number in part]
    assert min(numbers) >= 0
    assert max(numbers) < len(task.symbols())


@pytest.mark.parametrize("length", [1, 6])
def test_an_example_follows_from_the_generator_and_examples_differ(task, length):
    assert list(map(list, drawn(task, length))) == list(map(list, drawn(task, length)))
    assert len({tuple(drawn(task, 6, seed)[0]) for seed in range(40)}) > 5


@pytest.mark.parametrize("length", [1, 5])
def test_sizes_follow_from_the_length_and_grow_with_it(task, length):
    sizes = [list(map(len, drawn(task, length, seed))) for seed in range(10)]
    assert sizes == sizes[:1] * 10
    assert example_tokens(task, length) == sum(sizes[0]) <= example_tokens(task, length + 1)


def test_answers_are_not_always_the_same(task):
    assert len({tuple(drawn(task, 6, seed)[1]) for seed in range(40)}) > 1


def test_it_makes_batches(task):
    dataset = TaskDataConfig(task, max_length=6).prepare()
    batch = next(dataset.batches(4, 0))
    assert batch["inputs"].shape == (4, dataset.sequence_length)
    assert batch["targets"].max() < dataset.tokenizer.vocab_size
    assert (batch["weights"].sum(axis=1) > 0).all()


def test_letters():
    assert letters(28)[24:] == ("y", "z", "t26", "t27")
