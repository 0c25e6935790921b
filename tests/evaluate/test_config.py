from __future__ import annotations

import pytest

from jaxgpt.config import content_hash, decode, encode, override, parse_overrides
from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.sources.task import TaskDataConfig
from jaxgpt.data.sources.text import TextDataConfig
from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.config import EvaluationConfig, default_evaluation, default_protocols
from jaxgpt.evaluate.protocols.base import ProtocolConfig
from jaxgpt.registry import kinds


def overridden(*assignments: str) -> EvaluationConfig:
    raw = override({"evaluate": encode(EvaluationConfig())}, parse_overrides(assignments))
    return decode(EvaluationConfig, raw["evaluate"], "evaluate")


def test_by_default_every_protocol_is_measured():
    config = EvaluationConfig()
    everything = [protocol for data in kinds(DataConfig).values() for protocol in default_protocols(data).values()]
    assert {type(protocol) for protocol in everything} == set(kinds(ProtocolConfig).values())
    assert decode(EvaluationConfig, encode(config)) == config
    assert decode(EvaluationConfig, {}) == config


def test_what_is_measured_depends_on_the_data():
    assert default_evaluation(TextDataConfig) == EvaluationConfig()
    task = default_evaluation(TaskDataConfig)
    assert list(task.active()) == ["task"]
    assert task.ngram is None


def test_one_value_can_be_changed_and_changes_the_hash():
    config = overridden("evaluate.protocols.fixed_target.places=7")
    assert config.protocols["fixed_target"].places == 7
    assert config.protocols["sliding"] == EvaluationConfig().protocols["sliding"]
    assert content_hash(config) != content_hash(EvaluationConfig())


def test_null_leaves_a_protocol_or_the_baseline_out():
    config = overridden("evaluate.protocols.sliding=null", "evaluate.ngram=null")
    assert list(config.active()) == ["fixed_target", "non_overlapping", "by_position"]
    assert config.ngram is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "evaluate.protocols.fixed_target.place=7",
            r"^evaluate\.protocols\.fixed_target\.place: .*did you mean 'places'",
        ),
        ("evaluate.protocols.extra=slidin", r"did you mean 'sliding'"),
        ("evaluate.protocols.fixed_target.places=0", r"^evaluate\.protocols\.fixed_target: "),
        ("evaluate.protocols.again=sliding", r"^evaluate: protocols: the same type twice"),
        ("evaluate.max_tokens_per_batch=0", r"^evaluate: max_tokens_per_batch"),
    ],
)
def test_mistakes_are_refused_by_path(assignment, message):
    with pytest.raises(ConfigError, match=message):
        overridden(assignment)
