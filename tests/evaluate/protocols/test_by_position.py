from __future__ import annotations

import numpy as np
import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.protocols.by_position import ByPositionConfig

L = 16


def test_buckets_are_means_over_positions_and_rows(oracle, counting_text):
    scorer = oracle(lambda position, target: position + target % 2)
    measured = ByPositionConfig(bucket=0.5, rows=6).run(scorer, counting_text(300, 300), L)
    assert scorer.calls == [(6, 64, None)]
    assert [m.context for m in measured] == list(range(8, 65, 8))
    assert [m.value for m in measured] == [m.context - 8 + 3.5 + 0.5 for m in measured]
    assert {(m.metric, m.unit) for m in measured} == {("position_nll", "nats/token")}


def test_a_bucket_of_one_token_is_the_position_itself(oracle, counting_text):
    config = ByPositionConfig(window=1.0, bucket=1 / 16, rows=1)
    measured = config.run(oracle(lambda position, target: np.sqrt(position)), counting_text(50), L)
    assert [m.value for m in measured] == [float(np.float32(np.sqrt(m.context - 1))) for m in measured]


def test_a_bucket_must_divide_the_window(counting_text):
    with pytest.raises(ConfigError, match=r"by_position\.bucket: 12 tokens do not divide the window of 64"):
        ByPositionConfig(bucket=0.75).check(counting_text(500), L)
    with pytest.raises(ValueError, match="at least 1"):
        ByPositionConfig(rows=0)
