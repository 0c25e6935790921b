"""The experiment's plan and rules; results are synthetic."""

from pathlib import Path

import pytest

from jaxgpt.config import encode
from jaxgpt.experiment.claims import evaluate_claims
from jaxgpt.experiment.plan import make_plan
from jaxgpt.experiment.results import Results, Row
from jaxgpt.experiment.spec import load_experiment, load_scale
from jaxgpt.train.surgery import StartConfig

ROOT = Path(__file__).resolve().parents[2]
LOSSES = {  # at L/4, L, 4L: what the literature says
    "rope": (3.27, 3.16, 3.80),
    "linear": (4.10, 3.96, 3.96),
    "ntk": (3.30, 3.19, 3.30),
    "yarn": (3.31, 3.20, 3.20),
    "yarn-paper": (3.31, 3.21, 3.21),
    "yarn-s1": (3.27, 3.16, 3.80),
    "linear-tuned": (3.27, 3.17, 3.15),
    "yarn-tuned": (3.26, 3.16, 3.14),
    "rope-tuned": (3.26, 3.16, 3.15),
}


@pytest.fixture(scope="module")
def experiment():
    return load_experiment("context_extension", ROOT / "experiments")


@pytest.mark.parametrize("name", ["smoke", "laptop", "tiny"])
def test_every_arm_has_the_weights_and_lengths_it_should(experiment, tmp_path, name):
    plan = make_plan(experiment, load_scale(name, ROOT / "configs"), ROOT / "configs", tmp_path)
    arms = {arm.name: arm for arm in plan.arms}
    rope = arms["rope"].training
    assert {arm.length for arm in plan.arms} == {rope.data.sequence_length}
    for arm in plan.arms:
        scaling = encode(arm.model)["position"]["scaling"]
        assert scaling is None or scaling["original_length"] is None
        assert arm.model.train_length == rope.data.sequence_length
        assert list(arm.evaluation.active()) == ["fixed_target"]
    for arm in (arms["linear-tuned"], arms["yarn-tuned"], arms["rope-tuned"]):
        assert arm.training.train.steps <= 0.1 * rope.train.steps
        assert arm.training.data.sequence_length == 4 * rope.data.sequence_length
        assert arm.training.start == StartConfig(rope.hash)
    first = [run for run in plan.runs if run.seed == 0 and run.kind == "model"]
    assert [run.variant for run in first] == ["rope", "linear-tuned", "yarn-tuned", "rope-tuned"]
    assert len(first[0].evaluations) == 7


def verdicts(experiment, losses):
    rows = [
        Row("e", variant, seed, "fixed_target_nll", context, value + 0.01 * seed + 0.001 * (seed % 2) * place, "nats")
        for variant, values in losses.items()
        for place, (context, value) in enumerate(zip((32, 128, 512), values, strict=True))
        for seed in range(3)
    ]
    return {one.claim: one.verdict for one in evaluate_claims(experiment.claims, Results(rows, 128, tuple(losses)))}


def test_rules_support_what_the_literature_says(experiment):
    found = verdicts(experiment, LOSSES)
    judged = {claim: verdict for claim, verdict in found.items() if verdict != "shown"}
    assert len(judged) == 5
    assert set(judged.values()) == {"supported"}, judged
    assert found["YaRN against NTK without training"] == "shown"


def test_rules_contradict_the_opposite(experiment):
    worse = LOSSES | {
        "linear": (3.2, 3.0, 3.0),
        "yarn": (3.6, 3.4, 3.78),
        "yarn-s1": (3.3, 3.17, 3.80),
        "linear-tuned": (3.27, 3.17, 3.3),
    }
    found = verdicts(experiment, worse)
    assert {verdict for verdict in found.values() if verdict != "shown"} == {"contradicted"}, found
