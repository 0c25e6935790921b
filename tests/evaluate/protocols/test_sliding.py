from __future__ import annotations

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.protocols.sliding import SlidingConfig

L = 16


def test_only_the_last_stride_of_each_window_is_scored(oracle, counting_text):
    scorer = oracle(lambda position, target: position)
    config = SlidingConfig(stride=3, steps=5, stretches=1)
    measured = config.run(scorer, counting_text(60, 60), L)
    assert scorer.calls == [(5, 16, 3), (5, 32, 3), (5, 64, 3)]
    expected = list(range(62, 77))  # contiguous, from where the longest window has its text: tokens 62, 63, 64 end it
    assert all(scored == expected for scored in scorer.scored.values())
    nll = {m.context: m.value for m in measured if m.metric == "sliding_nll"}
    assert nll == {window: window - 2 for window in (16, 32, 64)}  # positions w - 3, w - 2, w - 1


def test_stretches_are_spread_over_the_stream(oracle, counting_text):
    scorer = oracle(lambda position, target: target)
    SlidingConfig(windows=(1.0,), steps=2, stretches=3).run(scorer, counting_text(300), L)
    assert scorer.scored[16] == [*range(13, 21), *range(152, 160), *range(292, 300)]


def test_a_stride_of_one_gives_every_token_a_whole_window(oracle, counting_text):
    scorer = oracle(lambda position, target: position)
    config = SlidingConfig(windows=(2.0,), stride=1, steps=20, stretches=1)
    (nll, _) = config.run(scorer, counting_text(100), L)
    assert (nll.context, nll.value) == (32, 31.0)
    assert scorer.scored[32] == list(range(32, 52))


def test_a_stride_that_would_skip_tokens_is_refused(counting_text):
    with pytest.raises(ConfigError, match=r"sliding\.stride: 17 is more than the shortest window of 16"):
        SlidingConfig(stride=17).check(counting_text(500), L)


@pytest.mark.parametrize("wrong", [{"windows": ()}, {"stride": 0}, {"steps": 0}, {"stretches": 0}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        SlidingConfig(**wrong)
