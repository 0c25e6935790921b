"""Adding seeds after a look: the verdicts change their test, and say so."""

import dataclasses
import json

from jaxgpt.experiment import looks
from jaxgpt.experiment.claims import Claim, R, at_least, at_most, evaluate_claims
from jaxgpt.experiment.results import Results
from jaxgpt.experiment.statistics import ALWAYS_VALID, T_TEST


def with_claims(plan, *claims):
    plan.directory.mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(plan, experiment=dataclasses.replace(plan.experiment, claims=claims))


FLAT = Claim("flat", "", at_most(R("alibi", 4), 1.05))
DEGRADES = Claim("degrades", "", at_least(R("rope", 4), 1.5))


def test_every_number_of_seeds_that_can_judge_is_a_look(toy, trial):
    plan = with_claims(toy.plan(), FLAT)
    assert looks.record(plan, trial(seeds=2)) == {}
    assert not (plan.directory / "looks.json").exists()
    for seeds, wanted in ((3, [3]), (3, [3]), (5, [3, 5]), (3, [3, 5])):
        assert looks.record(plan, trial(seeds=seeds)) == {"flat": wanted}
    assert list(json.loads((plan.directory / "looks.json").read_text()).values()) == [[3, 5]]


def test_a_claim_is_looked_at_with_the_seeds_that_judge_it(toy, trial):
    """Runs that are not finished, or of arms it is not about, do not count."""
    plan = with_claims(toy.plan(), FLAT, DEGRADES)
    five = trial(seeds=5)
    rows = [row for row in five.rows if row.variant != "alibi" or row.seed < 4]
    results = Results(rows, five.train_length, five.variants)
    assert looks.record(plan, results) == {"flat": [4], "degrades": [5]}
    assert looks.record(plan, five) == {"flat": [4, 5], "degrades": [5]}
    assert set(looks.methods(looks.record(plan, five))) == {"flat"}


def test_other_arms_or_rules_are_looked_at_for_themselves(toy, trial):
    plan, longer = with_claims(toy.plan(), FLAT), with_claims(toy.plan(["train.steps=5"]), FLAT)
    looks.record(plan, trial(seeds=3))
    assert looks.record(longer, trial(seeds=4)) == {"flat": [4]}
    stricter = with_claims(toy.plan(), dataclasses.replace(FLAT, test=at_most(R("alibi", 4), 1.01), rule=""))
    assert looks.record(stricter, trial(seeds=4)) == {"flat": [4]}
    assert looks.record(with_claims(toy.plan(seeds=5), FLAT), trial(seeds=5)) == {"flat": [3, 5]}, "seeds are no arms"
    places = ["evaluate.protocols.fixed_target.places=3"]
    assert looks.record(with_claims(toy.plan(places), FLAT), trial(seeds=4)) == {"flat": [3, 4, 5]}, "nor are places"


def test_the_second_look_changes_the_test():
    assert looks.methods({"flat": [5], "degrades": [3, 5]}) == {"degrades": ALWAYS_VALID}
    assert looks.note({}) == looks.note({"flat": [5]}) == []
    assert "Verdicts were formed with 3, 4 and 9 seeds" in looks.note({"flat": [3, 4, 9]})[0]
    assert "The verdicts on degrades were formed with 3 and 5 seeds" in looks.note({"flat": [5], "degrades": [3, 5]})[0]


def test_a_verdict_that_one_look_gives_may_not_survive_two(trial):
    claim = Claim("headline", "", at_least(R("rope", 4) / R("alibi", 4), 1.7), headline=True)
    methods = {"headline": T_TEST}, {"headline": ALWAYS_VALID}
    once, twice = (evaluate_claims([claim], trial(noise=0.008), methods=one)[0] for one in methods)
    assert (once.verdict, twice.verdict) == ("supported", "not resolved")
    assert twice.low < once.low < once.estimate == twice.estimate
    assert "seeds resolve" not in twice.reason, "what a t test would resolve says nothing of another"
