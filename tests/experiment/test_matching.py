"""Arms made equally large by their feed-forward width."""

import dataclasses

import pytest

from jaxgpt.config import parse_overrides
from jaxgpt.errors import ConfigError
from jaxgpt.experiment import cli
from jaxgpt.experiment.matching import MATCHES, matching_width, measure
from jaxgpt.experiment.plan import make_plan
from jaxgpt.experiment.spec import load_experiment, load_scale
from jaxgpt.models.decoder import DecoderConfig

MODEL = DecoderConfig(num_layers=2, width=32, num_heads=4, vocab_size=64, train_length=16)
LARGER = {
    "parameters": dataclasses.replace(MODEL, tie_embeddings=False),
    "flops": dataclasses.replace(MODEL, head_dim=16),
}

GATED = """\
        Variant("gated", {"model": {"feedforward": {"type": "gated", "hidden": 100}}}, description="SwiGLU"),
        Variant("stretched", {"extend": {"type": "yarn", "factor": 4.0}}, parent="gated"),
        Variant("further", {"train": {"steps": share(0.5)}}, parent="gated"),
    ]
"""


@pytest.fixture
def plan(toy):
    """plan(match) -> the toy's plan with arms of unlike size."""
    toy.add(GATED)

    def make(match, overrides=()):
        experiment = dataclasses.replace(load_experiment("toy", toy.experiments), match=match)
        scale = load_scale("small", toy.configs)
        return make_plan(experiment, scale, toy.configs, toy.runs, 1, parse_overrides(overrides))

    return make


def sizes(plan, match):
    return {arm.name: measure(arm.model, match, arm.training.data.sequence_length) for arm in plan.arms}


@pytest.mark.parametrize("match", MATCHES)
def test_the_nearest_width_is_found(match):
    target = measure(LARGER[match], match, 16)
    width = matching_width(MODEL, match, 16, target)
    assert width > 128
    reached, above, below = (
        abs(measure(MODEL.with_hidden(one), match, 16) - target) for one in (width, width + 1, width - 1)
    )
    assert reached <= min(above, below)
    assert matching_width(LARGER[match], match, 16, measure(MODEL, match, 16)) < 128, "and narrower the other way"


@pytest.mark.parametrize("match", MATCHES)
def test_what_is_as_near_as_can_be_stays_as_it_is(match):
    target = measure(MODEL, match, 16)
    unit = measure(MODEL.with_hidden(2), match, 16) - measure(MODEL.with_hidden(1), match, 16)
    for near in (target, target + unit // 2 - 1, target - unit // 2 + 1):
        assert matching_width(MODEL, match, 16, near) is None
    assert matching_width(MODEL, match, 16, target + unit) == 129


def test_what_is_too_large_without_feedforward_layers():
    with pytest.raises(
        ConfigError, match=r"parameters are left with a feed-forward width of 1, more than the 5,000 of"
    ):
        matching_width(MODEL, "parameters", 16, 5000)


@pytest.mark.parametrize("match", MATCHES)
def test_arms_follow_the_first_and_children_their_parent(plan, match):
    before, after = plan(None), plan(match)
    assert sizes(before, match)["gated"] > 1.1 * sizes(before, match)["rope"]
    found = sizes(after, match)
    assert abs(found["gated"] / found["rope"] - 1) < 0.01
    assert found["stretched"] == found["further"] == found["gated"]
    arms = {arm.name: arm for arm in after.arms}
    assert arms["further"].training.model.feedforward == arms["gated"].training.model.feedforward
    assert arms["stretched"].training == arms["gated"].training
    width = arms["gated"].model.feedforward.hidden
    assert arms["gated"].variant.description == f"SwiGLU; feed-forward width {width}"


def test_arms_of_the_same_size_keep_their_runs(plan):
    names = {match: [run.name for run in plan(match).runs] for match in (None, "parameters")}
    for variant in ("rope", "alibi"):
        assert [n for n in names[None] if n.startswith(f"{variant}-")] == [
            n for n in names["parameters"] if n.startswith(f"{variant}-")
        ]
    assert names[None] != names["parameters"]


@pytest.mark.parametrize("match", MATCHES)
def test_a_vocabulary_that_is_not_known_yet_is_asked_for(plan, match):
    with pytest.raises(
        ConfigError, match=r"variant '.*': match: .* known only after its training; give model\.vocab_size"
    ):
        plan(match, ["data.tokenizer=character"])


def test_arms_are_matched_within_their_panel(plan, toy):
    panel = """\
        Variant("one", {"model": {"width": 8}}, panel="small"),
        Variant("two", {"model": {"width": 8, "bias": True}}, panel="small"),
    ]
"""
    toy.add(panel)
    widths = {arm.name: arm.model.feedforward.hidden for arm in plan("parameters").arms}
    assert widths["one"] is None
    assert widths["two"] < 4 * 8


def test_an_arm_that_cannot_be_matched_is_named(plan, toy):
    toy.add('        Variant("wide", {"model": {"width": 64}}),\n    ]\n')
    with pytest.raises(ConfigError, match=r"variant 'wide': match: .* feed-forward width of 1"):
        plan("parameters")


def test_the_experiment_or_the_command_line_says_it(toy, capsys):
    toy.add(GATED)
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text() + '\n\ndef match():\n    return "parameters"\n')
    assert load_experiment("toy", toy.experiments).match == "parameters"
    arguments = ["status", "--exp", "toy", "--scale", "small", "--runs-dir", str(toy.runs)]
    states = {}
    for option in ([], ["--match", "nothing"], ["--match", "flops"], ["--match", "parameters"]):
        assert cli.main([*arguments, *option], toy.experiments, toy.configs) == 0
        states[" ".join(option)] = capsys.readouterr().out
    assert states[""] == states["--match parameters"]
    assert states["--match flops"] == states["--match parameters"] != states["--match nothing"]
    file.write_text(file.read_text().replace('"parameters"', '"weight"'))
    with pytest.raises(ConfigError, match=r"experiment toy: match\(\) must return None or one of parameters, flops"):
        load_experiment("toy", toy.experiments)
