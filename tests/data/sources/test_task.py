"""Examples by number: the same ones again after a stop, others for validation, only answers in the loss."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.sources.task import TaskDataConfig, rows
from jaxgpt.data.tasks.mqar import MqarConfig
from jaxgpt.errors import ConfigError


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def same(first, second):
    return all((first[name] == second[name]).all() for name in first)


@pytest.fixture
def dataset():
    return TaskDataConfig(max_length=6).prepare()


@pytest.mark.parametrize("stop", [0, 1, 40])
def test_resumes_with_the_very_same_batches(dataset, stop):
    iterator = dataset.batches(3, seed=5)
    take(iterator, stop)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 10)
    resumed = dataset.batches(3, seed=5)
    next(resumed)
    resumed.set_state(state)
    assert all(map(same, expected, take(resumed, 10)))


def test_an_example_is_that_of_its_number_whatever_the_batch(dataset):
    small, large = take(dataset.batches(2, seed=0), 4), take(dataset.batches(8, seed=0), 1)[0]
    assert (np.concatenate([batch["inputs"] for batch in small]) == large["inputs"]).all()


def test_seeds_and_parts_have_examples_of_their_own():
    dataset = TaskDataConfig(min_length=20).prepare()
    batches = [next(dataset.batches(64, seed=seed)) for seed in (0, 1)]
    batches += [next(dataset.validation_batches(64)), dataset.examples(20, 64)]
    seen = [{tuple(row) for row in batch["inputs"].tolist()} for batch in batches]
    assert all(len(rows) == 64 for rows in seen)
    assert all(first.isdisjoint(second) for first, second in itertools.combinations(seen, 2))


def test_a_row_is_separator_prompt_answer_padding(dataset):
    batch = rows([([1, 2, 0], [1, 2])], width=7)
    assert batch["inputs"].tolist() == [[0, 2, 3, 1, 2, 3, 0]]
    assert batch["targets"].tolist() == [[2, 3, 1, 2, 3, 0, 0]]
    assert batch["weights"].tolist() == [[0, 0, 0, 1, 1, 0, 0]]
    assert batch["segment"].tolist() == [[1, 1, 1, 1, 1, 0, 0]]
    several = rows([([1], [2], [3, 1], [4])])
    assert several["weights"].tolist() == [[0, 1, 0, 0, 1]]
    trained = next(dataset.batches(50, seed=0))
    assert {array.dtype for array in trained.values()} == {np.dtype(np.int32), np.dtype(np.float32)}
    lengths = trained["weights"].sum(axis=1)
    assert set(lengths) == {1, 2, 3, 4, 5, 6}
    assert (trained["segment"].sum(axis=1) == 2 * lengths + 1).all()


def test_validation_is_the_same_at_every_call(dataset):
    first, again = (list(dataset.validation_batches(4, 3)) for _ in range(2))
    assert len(first) == 3
    assert all(map(same, first, again))
    assert len(list(dataset.validation_batches(4))) == 8


def test_sizes_follow_from_the_task():
    config = TaskDataConfig(MqarConfig(keys=10, values=5), max_length=8)
    assert (config.sequence_length, config.reference_length, config.known_vocab_size()) == (32, 8, 17)
    assert config.describe() == {"task": "mqar", "lengths trained on": "1 to 8"}
    dataset = config.prepare()
    assert (dataset.sequence_length, dataset.tokenizer.vocab_size, dataset.packed) == (32, 17, False)
    assert dataset.fingerprint != TaskDataConfig(MqarConfig(keys=10, values=5), max_length=7).prepare().fingerprint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_length": 0}, "data: min_length: must be from 1 to max_length 20, got 0"),
        ({"min_length": 21}, "data: min_length: must be from 1 to max_length 20, got 21"),
        ({"task": "mqar", "max_length": 65}, "data: max_length: the task has symbols for lengths up to 64, not for 65"),
        ({"task": "cpoy"}, "data.task.type: no task is called 'cpoy'; did you mean 'copy'?"),
        ({"sequence_length": 64}, "data.sequence_length: no such key"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ConfigError) as caught:
        decode(DataConfig, {"type": "task", **fields}, "data")
    assert str(caught.value).startswith(message)
