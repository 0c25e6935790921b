from __future__ import annotations

import numpy as np
import pytest

from jaxgpt.evaluate.protocols.fixed_target import FixedTargetConfig
from jaxgpt.evaluate.protocols.non_overlapping import NonOverlappingConfig

L = 16


def nll(measurements):
    return {m.context: m.value for m in measurements if m.metric.endswith("_nll")}


def test_windows_start_anew_and_cover_the_same_tokens(oracle, counting_text):
    scorer = oracle(lambda position, target: position)
    measured = NonOverlappingConfig(stretches=2).run(scorer, counting_text(70, 130), L)
    assert scorer.calls == [(8, 16, None), (4, 32, None), (2, 64, None)]
    expected = [*range(1, 65), *range(136, 200)]  # both ends of the stream; what lies between fills no stretch
    assert all(scored == expected for scored in scorer.scored.values())
    assert nll(measured) == {context: (context - 1) / 2 for context in (16, 32, 64)}


def test_lengths_that_do_not_divide_each_other_are_cut_to_a_common_multiple(oracle, counting_text):
    scorer = oracle(lambda position, target: target)
    NonOverlappingConfig(multiples=(2.0, 3.0), stretches=5).run(scorer, counting_text(250), L)
    assert scorer.calls == [(6, 32, None), (4, 48, None)]  # two stretches of 96
    assert scorer.scored[32] == scorer.scored[48]


def test_the_early_token_effect_shows_here_and_not_at_fixed_targets(oracle, counting_text):
    dataset = counting_text(2000)

    def early(position, target):  # badly informed for the first four tokens of a window, then as good as ever
        return np.where(position < 4, 5.0, 2.0)

    windows = nll(NonOverlappingConfig().run(oracle(early), dataset, L))
    assert windows == {16: 2 + 3 * 4 / 16, 32: 2 + 3 * 4 / 32, 64: 2 + 3 * 4 / 64}
    fixed = nll(FixedTargetConfig(multiples=(1.0, 2.0, 4.0), places=9).run(oracle(early), dataset, L))
    assert fixed == {16: 2.0, 32: 2.0, 64: 2.0}


def test_bits_per_byte_are_reported_too(oracle, counting_text):
    dataset = counting_text(500, byte_lengths=np.full(1000, 2))
    measured = NonOverlappingConfig().run(oracle(lambda p, t: 0 * t + np.log(2)), dataset, L)
    assert [m.value for m in measured if m.unit == "bits/byte"] == pytest.approx([0.5] * 3)


@pytest.mark.parametrize("wrong", [{"multiples": ()}, {"stretches": 0}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValueError, match="at least one"):
        NonOverlappingConfig(**wrong)
