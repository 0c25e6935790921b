from __future__ import annotations

import math

import numpy as np
import pytest

from jaxgpt.errors import ConfigError, DataError
from jaxgpt.evaluate.protocols.fixed_target import FixedTargetConfig

L = 16


def values(measurements, metric="fixed_target_nll"):
    return {m.context: m.value for m in measurements if m.metric == metric}


def test_contexts_and_the_positions_scored(oracle, counting_text):
    scorer = oracle(lambda position, target: position)
    measured = FixedTargetConfig(places=5, targets=4).run(scorer, counting_text(600), L)
    contexts = [4, 8, 16, 32, 64, 128, 256]
    assert scorer.calls == [(5, context, 4) for context in contexts]
    assert values(measured) == {context: context - 2.5 for context in contexts}  # the last four: c - 4 to c - 1


def test_targets_are_the_last_tokens_of_places_spread_over_documents(oracle, counting_text):
    scorer = oracle(lambda position, target: target)
    dataset = counting_text(100, 300, 257, 500)  # 16 * 16 + 1 = 257 tokens are needed: the first has no place
    config = FixedTargetConfig(places=5)
    config.run(scorer, dataset, L)
    stops = config.stops(dataset.validation, L).tolist()
    assert stops == [100 + 257, 400, 657, 657 + 257, 1157]
    expected = [token for stop in stops for token in range(stop - 4, stop)]
    assert all(scored == expected for scored in scorer.scored.values())
    assert len(scorer.scored) == 7


def test_a_row_of_the_training_length_is_what_training_saw(counting_text):
    seen = {}

    def scorer(inputs, targets, last=None):
        seen[inputs.shape[1]] = inputs, targets
        return np.zeros((len(inputs), last), np.float32)

    FixedTargetConfig(places=1).run(scorer, counting_text(257), L)
    inputs, targets = seen[L]
    assert inputs.tolist() == [list(range(240, 256))]
    assert targets.tolist() == [list(range(241, 257))]
    assert seen[16 * L][0][0, 0] == 0  # the longest row begins with the document


def test_flat_where_only_the_target_matters(oracle, counting_text):
    measured = FixedTargetConfig(places=8).run(oracle(lambda position, target: 1 + target % 7), counting_text(900), L)
    assert len(set(values(measured).values())) == 1


def test_bits_per_byte_divide_by_the_bytes_of_the_targets(oracle, counting_text):
    byte_lengths = np.arange(600) % 5
    config = FixedTargetConfig(places=3, multiples=(1.0,))
    dataset = counting_text(600, byte_lengths=byte_lengths)
    measured = config.run(oracle(lambda position, target: target * 0.01), dataset, L)
    scored = np.concatenate([np.arange(stop - 4, stop) for stop in config.stops(dataset.validation, L)])
    assert values(measured)[L] == pytest.approx(scored.mean() * 0.01)
    bits = scored.sum() * 0.01 / math.log(2) / (scored % 5).sum()
    assert values(measured, "fixed_target_bits_per_byte") == {L: pytest.approx(bits)}


def test_short_documents_are_refused_with_what_is_needed(counting_text):
    with pytest.raises(DataError, match="257") as error:
        FixedTargetConfig().check(counting_text(256, 200), L)
    assert "fixed targets" in str(error.value)
    with pytest.raises(DataError, match="needs 2"):
        FixedTargetConfig(documents=2).check(counting_text(5000, 200), L)


def test_too_little_room_names_the_option(counting_text):
    with pytest.raises(DataError, match=r"room for 3 of 48 places; set evaluate\.protocols\.fixed_target\.places=3"):
        FixedTargetConfig().check(counting_text(265), L)


def test_targets_must_fit_the_shortest_context(counting_text):
    with pytest.raises(ConfigError, match=r"fixed_target\.targets=4 or less"):
        FixedTargetConfig(targets=5).check(counting_text(5000), L)
    with pytest.raises(ConfigError, match=r"fixed_target\.multiples: 0\.25 times the training length 6"):
        FixedTargetConfig().check(counting_text(5000), 6)


@pytest.mark.parametrize("wrong", [{"multiples": ()}, {"places": 0}, {"targets": 0}, {"documents": 0}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        FixedTargetConfig(**wrong)
