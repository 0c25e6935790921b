from __future__ import annotations

import numpy as np
import pytest

from jaxgpt.data.tokens import split_of
from jaxgpt.errors import DataError
from jaxgpt.evaluate import EvaluationConfig, NgramConfig, check, evaluate
from jaxgpt.evaluate.protocols.fixed_target import FixedTargetConfig
from jaxgpt.evaluate.protocols.non_overlapping import NonOverlappingConfig

L = 16


def test_all_protocols_in_order_with_progress(oracle, counting_text):
    told = []
    scorer = oracle(lambda position, target: np.cos(target))
    measured = evaluate(scorer, EvaluationConfig(), counting_text(3000), L, progress=lambda *event: told.append(event))
    names = ["fixed_target", "non_overlapping", "sliding", "by_position"]
    assert told == [(name, done, 4) for done, name in enumerate(names)]
    metrics = list(dict.fromkeys(m.metric for m in measured if m.metric.endswith("_nll")))
    assert metrics == ["fixed_target_nll", "non_overlapping_nll", "sliding_nll", "position_nll"]


@pytest.mark.parametrize("max_tokens", [1, 100, 8192])
def test_the_batch_size_changes_no_value(oracle, counting_text, max_tokens):
    def loss(position, target):
        return np.sin(position) + target % 5

    dataset = counting_text(3000)
    config = EvaluationConfig(max_tokens_per_batch=max_tokens)
    scorer = oracle(loss)
    assert evaluate(scorer, config, dataset, L) == evaluate(oracle(loss), EvaluationConfig(), dataset, L)
    assert all(rows == 1 or rows * length <= max_tokens for rows, length, _ in scorer.calls)
    assert len({(rows, length) for rows, length, _ in scorer.calls}) == len({call[1] for call in scorer.calls})


def test_a_model_without_positions_beyond_training_is_measured_up_to_there(oracle, counting_text):
    measured = evaluate(oracle(lambda position, target: target, longest=L), EvaluationConfig(), counting_text(3000), L)
    assert {m.context for m in measured if m.metric == "fixed_target_nll"} == {4, 8, 16}
    assert {m.context for m in measured if m.metric == "non_overlapping_nll"} == {16}
    assert not [m for m in measured if m.metric == "position_nll"]


def test_the_baseline_is_measured_like_a_model(text):
    dataset = text(split_of([np.arange(3000) % 7]))
    baseline = NgramConfig().fit(dataset.train.tokens, 7)
    measured = evaluate(baseline, EvaluationConfig(), dataset, L)
    fixed = {m.context: m.value for m in measured if m.metric == "fixed_target_nll"}
    assert len(fixed) == 7
    assert max(fixed.values()) < 0.1
    assert fixed[16] == fixed[256]  # five tokens are all it looks at


def test_check_finds_what_evaluation_would(counting_text):
    assert check(EvaluationConfig(), counting_text(3000), L) is None
    with pytest.raises(DataError, match="257 tokens"):
        check(EvaluationConfig(), counting_text(200, 200), L)
    only_windows = EvaluationConfig(protocols={"windows": NonOverlappingConfig(), "off": None})
    assert check(only_windows, counting_text(200, 200), L) is None
    with pytest.raises(DataError, match="places=1"):
        check(EvaluationConfig(protocols={"fixed": FixedTargetConfig(places=2)}), counting_text(257), L)
