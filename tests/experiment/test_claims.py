"""The rules of the experiment, on data whose truth is known, and the error rates of the verdicts by simulation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxgpt.experiment.claims import (
    NO,
    Claim,
    R,
    Verdict,
    all_of,
    any_of,
    at_least,
    at_most,
    best_in_range,
    context_gate,
    evaluate_claims,
    nll,
    perplexity,
    show,
    write_verdicts,
)
from jaxgpt.experiment.results import MissingResult, Results, Row

Trial = Callable[..., Results]

HEADLINE = Claim("headline", "", at_least(R("rope", 4) / R("alibi", 4), 1.3), headline=True, gate=("alibi",))
FLAT = Claim("flat", "", all_of(at_most(R("alibi", 4), 1.05), at_most(NO("alibi", 4), 1.02)), gate=("alibi",))
DEGRADES = Claim("degrades", "", any_of(at_least(R("rope", 4), 1.5), at_least(NO("rope", 4), 1.25)))
COLLAPSES = Claim("collapses", "", at_least(R("sinusoidal", 4), 1.5))
YARN = Claim("yarn", "", at_most(perplexity("yarn", 4) / perplexity("rope", 4), 0.8), gate=("yarn",))
WORST = Claim("worst", "", at_least(nll("nope", 1) - nll("rope", 1), 0.02))
HOME = Claim("home", "", show(nll("rope", 1) - nll("alibi", 1)))
CLAIMS = [HEADLINE, HOME, FLAT, DEGRADES, COLLAPSES, YARN, WORST]


def judge(claim: Claim, results: Results) -> Verdict:
    return evaluate_claims([claim], results)[0]


def drawn(*arms: tuple[str, dict[int, list[float]]], length: int = 128) -> Results:
    """Results from (variant, context -> one loss per seed)."""
    return Results(
        [
            Row("e", variant, seed, "fixed_target_nll", context, float(loss), "nats/token")
            for variant, losses in arms
            for context, by_seed in losses.items()
            for seed, loss in enumerate(by_seed)
        ],
        length,
    )


def test_the_trial_supports_every_claim(trial: Trial):
    verdicts = {verdict.claim: verdict for verdict in evaluate_claims(CLAIMS, trial())}
    assert {name: verdict.verdict for name, verdict in verdicts.items()} == {
        "headline": "supported",
        "home": "shown",
        "flat": "supported",
        "degrades": "supported",
        "collapses": "supported",
        "yarn": "supported",
        "worst": "supported",
    }
    assert verdicts["headline"].estimate == pytest.approx(math.exp(3.800 - 3.164 - 3.449 + 3.444), rel=0.03)
    assert verdicts["yarn"].estimate == pytest.approx(0.55, abs=0.02)
    assert verdicts["worst"].estimate == pytest.approx(0.625, abs=0.03)
    assert verdicts["home"].estimate == pytest.approx(-0.28, abs=0.03)
    for verdict in verdicts.values():
        assert verdict.low <= verdict.estimate <= verdict.high  # type: ignore[operator]
        assert verdict.seeds == 3
        assert verdict.gate == ("none" if verdict.claim == "home" else "passed")


def test_the_opposite_is_contradicted(trial: Trial):
    flipped = {
        "rope": (3.50, 3.45, 3.44, 3.44, 3.45, 3.45, 3.45),
        "alibi": (3.27, 3.17, 3.16, 3.47, 3.80, 4.03, 4.15),
        "sinusoidal": (3.6, 3.55, 3.5, 3.5, 3.5, 3.5, 3.5),
        "yarn": (3.50, 3.45, 3.44, 3.44, 3.45, 3.45, 3.45),
        "nope": (3.50, 3.45, 3.30, 3.44, 3.45, 3.45, 3.45),
    }
    windows = {"alibi": (3.3, 3.5, 3.8), "rope": (3.5, 3.5, 3.5)}
    verdicts = evaluate_claims([claim for claim in CLAIMS if claim is not HOME], trial(fixed=flipped, windows=windows))
    assert {verdict.verdict for verdict in verdicts} == {"contradicted"}


def test_an_and_is_contradicted_by_one_part_and_an_or_only_by_all(trial: Trial):
    mixed = {"alibi": (3.54, 3.6, 3.7), "rope": (3.3, 3.3, 3.3)}  # NO_alibi = 1.17, NO_rope = 1
    results = trial(windows=mixed)
    flat, degrades = evaluate_claims([FLAT, DEGRADES], results)
    assert flat.verdict == "contradicted"
    assert flat.estimate == pytest.approx(math.exp(0.16), rel=0.02), "the part that fails stands for the whole"
    assert degrades.verdict == "supported", "R_rope alone is enough"
    tame = {"rope": (3.27, 3.17, 3.16, 3.17, 3.56, 3.6, 3.6)}  # R_rope(4L) = exp(0.4): just below 1.5
    blurred = judge(DEGRADES, trial(fixed=tame, windows={"rope": (3.3, 3.3, 3.3)}, noise=0.01))
    assert blurred.verdict == "not resolved"
    assert "R_rope(4L)" in blurred.reason
    assert "crosses the bound 1.5" in blurred.reason
    assert "3 seeds resolve a factor of" in blurred.reason
    assert "lies on the far side of the bound 1.25" in blurred.reason


def test_what_is_not_resolved_says_why(trial: Trial):
    close = {"rope": (3.3, 3.2, 3.10), "nope": (3.4, 3.3, 3.12)}
    verdict = judge(WORST, trial(fixed=close, noise=0.003))
    assert verdict.verdict == "not resolved"
    assert "nats/token: the interval crosses the bound 0.02; 3 seeds resolve a difference of 0.0" in verdict.reason
    family = [Claim(f"{i}", "", at_least(R("rope", 4), 1.829), headline=True) for i in range(9)]
    verdict = evaluate_claims(family, trial())[0]
    assert verdict.verdict == "not resolved", "clear alone, not in a family of nine"
    assert "the interval lies on the near side of the bound 1.829" in verdict.reason
    assert "after Holm over 9 headline claims" in verdict.reason


def test_one_seed_never_judges(trial: Trial):
    for verdict in evaluate_claims(CLAIMS, trial(seeds=1)):
        assert verdict.verdict == ("shown" if verdict.claim == "home" else "not resolved")
        assert verdict.low is verdict.high is None
        assert verdict.estimate is not None
        if verdict.claim != "home":
            assert verdict.reason == "too few seeds: 1 of at least 3"
    assert judge(HEADLINE, trial(seeds=2)).reason == "too few seeds: 2 of at least 3"
    assert evaluate_claims([HEADLINE], trial(seeds=2, noise=0.001), minimum_seeds=2)[0].verdict == "supported"
    with pytest.raises(ValueError, match="never comes from one seed"):
        evaluate_claims(CLAIMS, trial(), minimum_seeds=1)


def test_no_verdict_from_models_that_do_not_use_their_context(trial: Trial):
    underfit = dict.fromkeys(("rope", "alibi", "sinusoidal", "nope", "yarn"), (3.5, 3.5, 3.495, 3.5, 3.9, 3.9, 3.9))
    for claim in (HEADLINE, COLLAPSES, YARN):
        verdict = judge(claim, trial(fixed=underfit))
        assert verdict.verdict == "not resolved"
        assert verdict.reason.startswith("underfit: ")
        assert verdict.gate.startswith("failed (")


def test_the_arm_a_claim_praises_must_pass_the_gate_and_one_it_faults_need_not(trial: Trial):
    results = trial()
    assert context_gate(results, "nope").passed is False
    assert judge(WORST, results).verdict == "supported"
    praise = Claim("nope is flat", "", at_most(R("nope", 4), 1.2), gate=("nope",))
    verdict = judge(praise, results)
    assert verdict.verdict == "not resolved"
    assert verdict.gate == "failed (nope)"
    assert "nope: nll(L/4) - nll(L) = -0.04" in verdict.reason


def test_gate_needs_both_size_and_certainty():
    home = [3.1, 3.0, 3.2]
    for drops, passed in (([0.03, 0.031, 0.029], True), ([0.015, 0.016, 0.017], False), ([0.2, 0.01, -0.02], False)):
        quarter = [a + b for a, b in zip(home, drops, strict=True)]
        gate = context_gate(drawn(("rope", {32: quarter, 128: home})), "rope")
        assert gate.passed is passed, gate.reason
    assert context_gate(drawn(("rope", {32: [3.2], 128: [3.0]})), "rope").passed is None


def test_an_unmeasured_gate_is_unknown_and_judges_nothing(trial: Trial):
    results = trial()
    without = Results([row for row in results.rows if row.context != 32], results.train_length)
    verdict = judge(HEADLINE, without)
    assert verdict.verdict == "not resolved"
    assert verdict.gate == "unknown (rope, alibi)"
    assert "rope: fixed_target_nll was not measured at context 32" in verdict.reason


def test_best_in_range_counts_no_baseline_and_no_diverged_arm():
    arms = drawn(("rope", {128: [3.2, 3.2]}), ("alibi", {128: [3.3, 3.1]}), ("bad", {128: [math.nan, 1.0]}))
    assert best_in_range(arms) == "rope"
    assert best_in_range(drawn(("5-gram", {128: [1.0]}), ("alibi", {128: [3.3]}))) == "alibi"
    with pytest.raises(MissingResult, match="no variant has fixed_target_nll at context L = 128"):
        best_in_range(drawn(("sinusoidal", {512: [3.0]})))
    verdict = judge(COLLAPSES, drawn(("sinusoidal", {512: [3.0]})))
    assert (verdict.verdict, verdict.estimate) == ("not resolved", None)


def test_missing_and_diverged_results_leave_a_claim_unresolved(trial: Trial):
    results = trial()
    nothing = judge(Claim("t5", "", at_most(R("t5", 4), 1.1)), results)
    assert (nothing.verdict, nothing.estimate, nothing.seeds, nothing.gate) == ("not resolved", None, 0, "unknown")
    assert "no results of a variant 't5'" in nothing.reason
    nan = [
        Row(**(vars(row) | {"value": math.nan})) if (row.variant, row.seed, row.context) == ("alibi", 1, 512) else row
        for row in results.rows
    ]
    verdict = judge(HEADLINE, Results(nan, results.train_length))
    assert verdict.verdict == "not resolved"
    assert "alibi seed 1: fixed_target_nll at context 512 is nan" in verdict.reason
    partial = Results([row for row in trial(4).rows if (row.variant, row.seed) != ("rope", 2)], results.train_length)
    verdict = judge(HEADLINE, partial)
    assert (verdict.verdict, verdict.seeds) == ("supported", 3)
    assert "seed 2 left out: rope has no result" in verdict.reason


def test_exact_results_are_judged():
    same = [3.0, 3.1, 3.2]
    arms = drawn(("rope", {32: [3.2, 3.3, 3.4], 128: same}), ("yarn", {128: same}))
    equal = Claim("s=1 is identical", "", at_most(perplexity("yarn", 1) / perplexity("rope", 1), 1.1))
    verdict = judge(equal, arms)
    assert (verdict.verdict, verdict.estimate, verdict.low, verdict.high) == ("supported", 1.0, 1.0, 1.0)


def test_claims_check_themselves(trial: Trial):
    with pytest.raises(TypeError, match="gate is a tuple of variants"):
        Claim("a", "", COLLAPSES.test, gate="rope")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="never judged cannot be a headline"):
        Claim("a", "", show(nll("rope", 1)), headline=True)
    with pytest.raises(ValueError, match="same name"):
        evaluate_claims([HEADLINE, HEADLINE], trial())
    assert HEADLINE.rule == "R_rope(4L) / R_alibi(4L) >= 1.3"
    assert Claim("a", "", COLLAPSES.test, rule="in words").rule == "in words"


def test_holm_adjusts_headline_claims_only(trial: Trial):
    results = trial()
    plain = judge(COLLAPSES, results).p_value
    family = [Claim(f"headline {i}", "", at_least(R("rope", 4), 1.5 + i / 1e6), headline=True) for i in range(3)]
    lost = Claim("lost", "", at_least(R("t5", 4), 1.5), headline=True)
    verdicts = {verdict.claim: verdict for verdict in evaluate_claims([*family, lost, COLLAPSES], results)}
    single = judge(family[0], results).p_value
    assert single is not None
    assert verdicts["headline 0"].p_value == pytest.approx(4 * single, rel=0.01), "one that cannot be judged counts"
    assert verdicts["collapses"].p_value == plain
    assert "after Holm over 4 headline claims" in verdicts["headline 0"].reason


def test_verdicts_json(trial: Trial, tmp_path: Path):
    write_verdicts(tmp_path / "verdicts.json", evaluate_claims(CLAIMS, trial(seeds=1)))
    found = json.loads((tmp_path / "verdicts.json").read_text())
    assert [one["claim"] for one in found] == [claim.name for claim in CLAIMS if claim.judged]
    for one in found:
        assert list(one) == ["claim", "rule", "verdict", "reason", "estimate", "low", "high", "seeds", "gate"]
        assert one["verdict"] in ("supported", "contradicted", "not resolved")
        assert one["low"] is None


@pytest.mark.parametrize("seeds", [3, 5])
def test_false_verdicts_at_the_bound_come_in_5_of_100_experiments(seeds: int):
    """With the truth on the bound each direction is wrong at the level, whatever the seeds' own spread."""
    generator = np.random.default_rng(seeds)
    claim = Claim("c", "", at_least(R("rope", 4), 1.5))
    counts = {"supported": 0, "contradicted": 0, "not resolved": 0}
    for _ in range(1500):
        effect = generator.normal(0, 0.1, seeds)
        home = 3.1 + effect
        far = home + math.log(1.5) + generator.normal(0, 0.02, seeds)
        verdict = judge(claim, drawn(("rope", {32: list(home + 0.1), 128: list(home), 512: list(far)})))
        counts[verdict.verdict] += 1
    assert counts["supported"] / 1500 == pytest.approx(0.05, abs=0.017)
    assert counts["contradicted"] / 1500 == pytest.approx(0.05, abs=0.017)


def test_a_family_of_headlines_at_their_bounds_is_rarely_wrong_at_all():
    """Five headline claims, all on their bound and correlated through the seeds: any `supported` in at most 5%."""
    generator = np.random.default_rng(7)
    arms = [f"arm{i}" for i in range(5)]
    claims = [Claim(arm, "", at_least(R(arm, 4), 1.5), headline=True) for arm in arms]
    wrong = {"supported": 0, "contradicted": 0}
    for _ in range(400):
        home = 3.1 + generator.normal(0, 0.1, 3)
        shared = generator.normal(0, 0.02, 3)
        results = drawn(
            *(
                (
                    arm,
                    {
                        32: list(home + 0.1),
                        128: list(home),
                        512: list(home + math.log(1.5) + shared + generator.normal(0, 0.02, 3)),
                    },
                )
                for arm in arms
            )
        )
        found = {verdict.verdict for verdict in evaluate_claims(claims, results)}
        for outcome in wrong:
            wrong[outcome] += outcome in found
    assert wrong["supported"] / 400 <= 0.05 + 0.025
    assert wrong["contradicted"] / 400 <= 0.05 + 0.025


def test_effects_of_the_trials_size_are_found(trial: Trial):
    """The power of the real experiment: 3 seeds, noise several times that of the trial, six claims."""
    found = [
        verdict.verdict == "supported"
        for generator in range(20)
        for verdict in evaluate_claims([HEADLINE, COLLAPSES, YARN, WORST], trial(generator=generator, noise=0.008))
    ]
    assert np.mean(found) > 0.8
