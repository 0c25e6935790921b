from __future__ import annotations

import numpy as np
import pytest

from jaxgpt.data.sources.task import TaskDataConfig
from jaxgpt.data.tasks.mqar import MqarConfig
from jaxgpt.errors import ConfigError, ContextTooLong
from jaxgpt.evaluate import EvaluationConfig, NgramConfig, check, evaluate
from jaxgpt.evaluate.protocols.fixed_target import FixedTargetConfig
from jaxgpt.evaluate.protocols.task import TaskProtocolConfig

L = 4


class Copier:
    """Says what stood `back(length)` tokens before, and nothing beyond `longest` symbols; knows no loss."""

    def __init__(self, wrong_at=(), longest=100):
        self.wrong_at, self.longest = wrong_at, longest

    def __call__(self, inputs_BT, targets_BT, last=None):
        raise AssertionError("accuracy needs no loss")

    def hits(self, inputs_BT, targets_BT, last=None):
        length = inputs_BT.shape[1] // 2
        if length > self.longest:
            raise ContextTooLong(f"positions end at {self.longest}")
        said = np.roll(inputs_BT, length, axis=1)
        said[:, [length + at for at in self.wrong_at if at < length]] = 0
        return (said == targets_BT)[:, -last:]


def measure(scorer, **fields):
    dataset = TaskDataConfig(max_length=L).prepare()
    config = EvaluationConfig({"task": TaskProtocolConfig(**fields)}, ngram=None, max_tokens_per_batch=64)
    return {(one.metric, one.context): one.value for one in evaluate(scorer, config, dataset, L)}


def test_a_model_that_copies_is_right_at_every_length():
    measured = measure(Copier(), examples=30)
    assert {context for _, context in measured} == {2, 4, 5, 6, 7, 8}
    assert set(measured.values()) == {1.0}


def test_one_wrong_token_spoils_the_example_and_little_of_the_tokens():
    measured = measure(Copier(wrong_at=[5]), multiples=(1, 2), examples=30)
    assert measured["task_exact_match", 4] == measured["task_token_accuracy", 4] == 1.0
    assert measured["task_exact_match", 8] == 0.0
    assert measured["task_token_accuracy", 8] == pytest.approx(7 / 8)


def test_a_length_that_the_model_cannot_take_is_left_out(caplog):
    assert {context for _, context in measure(Copier(longest=5), examples=3)} == {2, 4, 5}
    assert "task: no measurement at context 13: positions end at 5" in caplog.text


def test_lengths_that_the_task_has_no_symbols_for_are_refused_before_training():
    dataset = TaskDataConfig(MqarConfig(keys=6), max_length=L).prepare()
    config = EvaluationConfig({"task": TaskProtocolConfig()}, ngram=None)
    with pytest.raises(ConfigError, match="has symbols for lengths up to 6, not for 8; give it more"):
        check(config, dataset, L)
    assert check(EvaluationConfig({"task": TaskProtocolConfig(multiples=(1, 1.5))}, ngram=None), dataset, L) is None


def test_protocols_say_which_data_they_need(counting_text):
    task = TaskDataConfig(max_length=L).prepare()
    with pytest.raises(ConfigError, match=r"evaluate.protocols.task: needs .*data.type: task"):
        check(EvaluationConfig({"task": TaskProtocolConfig()}), counting_text(500), L)
    with pytest.raises(ConfigError, match=r"fixed_target: needs text .* set evaluate.protocols.fixed_target=null"):
        check(EvaluationConfig({"fixed": FixedTargetConfig()}, ngram=None), task, L)
    with pytest.raises(ConfigError, match=r"evaluate\.ngram: n-grams are counted on text"):
        check(EvaluationConfig({"task": TaskProtocolConfig()}), task, L)


def test_an_n_gram_predicts_nothing():
    baseline = NgramConfig(order=1).fit(np.arange(18), 18)
    with pytest.raises(ConfigError, match="an n-gram predicts no token"):
        measure(baseline)


@pytest.mark.parametrize("fields", [{"multiples": ()}, {"examples": 0}])
def test_nothing_to_measure_is_refused(fields):
    with pytest.raises(ValueError, match="at least one"):
        TaskProtocolConfig(**fields)
