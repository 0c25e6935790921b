"""Adding seeds after a look: the verdicts change their test, and say so."""

import json

import pytest

from jaxgpt.experiment import looks
from jaxgpt.experiment.claims import Claim, R, at_least, evaluate_claims
from jaxgpt.experiment.statistics import ALWAYS_VALID, T_TEST


def test_every_number_of_seeds_that_can_judge_is_a_look(toy, trial):
    plan = toy.plan()
    plan.directory.mkdir(parents=True)
    assert looks.record(plan, trial(seeds=2)) == ()
    assert not (plan.directory / "looks.json").exists()
    for seeds, wanted in ((3, (3,)), (3, (3,)), (5, (3, 5)), (3, (3, 5))):
        assert looks.record(plan, trial(seeds=seeds)) == wanted
    assert list(json.loads((plan.directory / "looks.json").read_text()).values()) == [[3, 5]]


def test_another_set_of_arms_is_looked_at_for_itself(toy, trial):
    plan, longer = toy.plan(), toy.plan(["train.steps=5"])
    plan.directory.mkdir(parents=True)
    looks.record(plan, trial(seeds=3))
    assert looks.record(longer, trial(seeds=4)) == (4,)
    assert looks.record(toy.plan(seeds=5), trial(seeds=5)) == (3, 5), "seeds are no other arms"


@pytest.mark.parametrize(("seen", "method"), [((), T_TEST), ((5,), T_TEST), ((3, 5), ALWAYS_VALID)])
def test_the_second_look_changes_the_test(seen, method):
    assert looks.method(seen) is method
    assert bool(looks.note(seen)) == (method is ALWAYS_VALID)
    assert "with 3, 4 and 9 seeds" in looks.note((3, 4, 9))[0]


def test_a_verdict_that_one_look_gives_may_not_survive_two(trial):
    claim = Claim("headline", "", at_least(R("rope", 4) / R("alibi", 4), 1.7), headline=True)
    once, twice = (evaluate_claims([claim], trial(noise=0.008), method=method)[0] for method in (T_TEST, ALWAYS_VALID))
    assert (once.verdict, twice.verdict) == ("supported", "not resolved")
    assert twice.low < once.low < once.estimate == twice.estimate
