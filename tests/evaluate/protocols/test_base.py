"""What every protocol promises, whichever it is; a new one is held to it by being registered."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from jaxgpt.config import decode, encode
from jaxgpt.data.sources.text import TextDataConfig
from jaxgpt.data.tokens import split_of
from jaxgpt.errors import DataError
from jaxgpt.evaluate.protocols.base import Measurement, ProtocolConfig, averages, losses
from jaxgpt.registry import kinds

L = 16
KINDS = {kind: config for kind, config in kinds(ProtocolConfig).items() if kind in TextDataConfig.protocols}


@pytest.fixture(params=KINDS, ids=str)
def protocol(request) -> ProtocolConfig:
    return KINDS[request.param]()


@pytest.fixture
def dataset(counting_text):
    return counting_text(3000, 40, 2000, 500)


def test_the_four_of_the_issue_exist():
    assert set(KINDS) >= {"fixed_target", "non_overlapping", "sliding", "by_position"}


def test_configuration_round_trips(protocol):
    assert decode(ProtocolConfig, encode(protocol)) == protocol


def test_a_constant_loss_is_measured_as_itself(protocol, dataset, oracle):
    measurements = protocol.run(oracle(lambda position, target: np.full(target.shape, 1.5)), dataset, L)
    assert measurements
    for measurement in measurements:
        assert isinstance(measurement.value, float)
        assert isinstance(measurement.context, int)
        expected = 1.5 / math.log(2) if measurement.unit == "bits/byte" else 1.5
        assert measurement.value == pytest.approx(expected)
    names = [(measurement.metric, measurement.context) for measurement in measurements]
    assert len(set(names)) == len(names)
    contexts = [measurement.context for measurement in measurements]
    assert contexts == sorted(contexts)


def test_every_context_scores_the_same_tokens_once(protocol, dataset, oracle):
    scorer = oracle(lambda position, target: target)
    protocol.run(scorer, dataset, L)
    scored = [sorted(targets) for targets in scorer.scored.values()]
    assert all(targets == scored[0] for targets in scored)
    assert len(set(scored[0])) == len(scored[0])


def test_a_scorer_that_refuses_a_length_loses_only_that(protocol, dataset, oracle, caplog):
    whole = protocol.run(oracle(lambda position, target: target), dataset, L)
    with caplog.at_level(logging.WARNING, "jaxgpt.evaluate"):
        part = protocol.run(oracle(lambda position, target: target, longest=L), dataset, L)
    single_window = protocol.run(oracle(lambda position, target: target, longest=1), dataset, L)
    assert single_window == []
    expected = [] if encode(protocol)["type"] == "by_position" else [m for m in whole if m.context <= L]
    assert part == expected
    assert "positions end at 16" in caplog.text


def test_too_little_text_is_refused_before_training(protocol, counting_text):
    with pytest.raises(DataError, match=r"\d+ tokens"):
        protocol.check(counting_text(3, 2), L)


def test_enough_text_passes_the_check(protocol, dataset):
    assert protocol.check(dataset, L) is None


def test_scores_do_not_depend_on_how_tokens_are_stored(protocol, oracle, text):
    tokens = np.arange(3000)
    small, large = split_of([tokens]), split_of([tokens])
    object.__setattr__(large, "tokens", tokens.astype(np.uint32))
    results = [protocol.run(oracle(lambda p, t: np.sin(p + t)), dataset, L) for dataset in (text(small), text(large))]
    assert results[0] == results[1]


def test_averages_are_sums_over_tokens_and_over_bytes():
    measured = averages("x", 8, np.full((2, 3), math.log(2), np.float32), np.array([[0, 1, 2], [4, 1, 1]]))
    assert measured == [
        Measurement("x_nll", 8, pytest.approx(math.log(2)), "nats/token"),
        Measurement("x_bits_per_byte", 8, pytest.approx(6 / 9), "bits/byte"),
    ]


def test_tokens_that_stand_for_no_text_have_no_bits_per_byte():
    assert [m.metric for m in averages("x", 8, np.ones((1, 2), np.float32), np.zeros((1, 2), int))] == ["x_nll"]


def test_sums_are_float64():
    many = np.full((1000, 10_000), 0.1, np.float32)
    (nll,) = averages("x", 8, many, np.zeros((1, 1), int))
    assert nll.value == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_a_loss_that_is_no_number_is_left_out(oracle, caplog):
    rows = np.arange(6, dtype=np.int32)[None]
    scorer = oracle(lambda position, target: np.where(target == 3, np.nan, 1.0))
    assert losses("x", scorer, rows[:, :-1], rows[:, 1:]) is None
    assert "x: no measurement at context 5: the loss is not a finite number" in caplog.text


def test_the_base_is_no_protocol(dataset, oracle):
    with pytest.raises(TypeError, match="check"):
        ProtocolConfig().check(dataset, L)
    with pytest.raises(TypeError, match="run"):
        ProtocolConfig().run(oracle(lambda p, t: t), dataset, L)


@pytest.mark.parametrize("kind", ["fixed_target", "non_overlapping"])
def test_the_parts_by_document_add_up_to_the_value(kind, dataset, oracle):
    """The loss of a token is its own number, so each document's mean says which tokens were counted to it."""
    measured = KINDS[kind]().run(oracle(lambda position, target: target), dataset, L)
    offsets = dataset.validation.offsets
    for one in measured:
        if one.unit != "nats/token":
            assert one.documents == ()
            continue
        total, tokens = (sum(part[i] for part in one.documents) for i in (1, 2))
        assert total / tokens == pytest.approx(one.value)
        for document, part, count in one.documents:
            assert offsets[document] <= part / count < offsets[document + 1]
        assert len({document for document, _, _ in one.documents}) == len(one.documents) >= 2


def test_targets_left_out_fit_the_shortest_context():
    config = KINDS["fixed_target"](multiples=(0.125, 1.0))
    assert config.scored(64) == 8
    assert KINDS["fixed_target"]().scored(64) == 16
