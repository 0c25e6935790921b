"""The claim that CONTRIBUTING.md shows is one function, and gets its verdict."""

from jaxgpt.experiment.claims import evaluate_claims


def test_a_new_claim_is_one_function(trial, recipe):
    names: dict = {}
    exec(recipe("Add a claim"), names)
    (verdict,) = evaluate_claims([names["costs_little_at_home"]()], trial())
    assert verdict.verdict == "supported"
    assert verdict.rule == "PPL_yarn(L) / PPL_rope(L) <= 1.1"
    assert verdict.gate == "passed"
