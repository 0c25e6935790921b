"""The rules of the literature's claims, word for word, and what the trial's results make of them."""

import pytest

from jaxgpt.experiment import published
from jaxgpt.experiment.claims import evaluate_claims

RULES = {
    published.extrapolates_better: (("alibi", "rope"), "R_rope(4L) / R_alibi(4L) >= 1.3", "supported"),
    published.stays_flat: (("alibi",), "R_alibi(4L) <= 1.05 and NO_alibi(4L) <= 1.02", "supported"),
    published.degrades: (("rope",), "R_rope(4L) >= 1.5 or NO_rope(4L) >= 1.25", "supported"),
    published.collapses: (("sinusoidal",), "R_sinusoidal(4L) >= 1.5", "supported"),
    published.is_worst_in_range: (("nope", "rope"), "nll_nope(L) - nll_rope(L) >= 0.02 nats", "supported"),
    published.beats_sinusoidal_out_of_range: (
        ("nope", "sinusoidal"),
        "R_nope(2L) / R_sinusoidal(2L) <= 1",
        "not resolved",  # the trial's NoPE does not use its context
    ),
    published.rescues: (("yarn", "rope"), "PPL_yarn(4L) / PPL_rope(4L) <= 0.8", "supported"),
    published.costs_little_at_home: (("yarn", "rope"), "PPL_yarn(L) / PPL_rope(L) <= 1.1", "supported"),
    published.lies_between: (("t5", "alibi"), "R_t5(2L) <= 1.08 and R_t5(8L) / R_alibi(8L) >= 1", "not resolved"),
    published.is_free: (("alibi", "nope"), "step_time_alibi / step_time_nope <= 1.1", "not resolved"),
}


@pytest.mark.parametrize("make", RULES, ids=lambda make: make.__name__)
def test_rule_and_verdict_on_the_trial(make, trial):
    arms, rule, verdict = RULES[make]
    claim = make(*arms)
    assert claim.rule == rule
    found = evaluate_claims([claim], trial())[0]
    assert found.verdict == verdict, found.reason


def test_every_function_is_held_to_its_rule():
    public = {value for value in vars(published).values() if getattr(value, "__module__", "") == published.__name__}
    assert public == set(RULES)
