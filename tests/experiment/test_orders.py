from __future__ import annotations

import pytest

from jaxgpt.experiment.claims import Claim, accuracy, at_least, evaluate_claims
from jaxgpt.experiment.orders import in_order
from jaxgpt.experiment.results import MissingResult, Results, Row

L = 20


def results(held: int, seeds: int = 5, others: float = 0.6) -> Results:
    """Three arms whose accuracies at 2L fall from a to c in `held` seeds, and not in the others; at 1.5L all are 1."""
    rows = []
    for seed in range(seeds):
        shares = (0.9, 0.5, 0.2) if seed < held else (0.9, 0.5, others)
        for name, share in zip("abc", shares, strict=True):
            rows += [Row("x", name, seed, "task_exact_match", 40, share, "share")]
            rows += [Row("x", name, seed, "task_exact_match", 30, 1.0, "share")]
    return Results(rows, L)


ORDER = in_order(accuracy("a", 2), accuracy("b", 2), accuracy("c", 2), seeds=4, of=5)


def verdict(held: int, seeds: int = 5):
    (found,) = evaluate_claims([Claim("order", "", ORDER, gate=None)], results(held, seeds))
    return found


def test_the_rule_in_words():
    assert str(ORDER) == "accuracy_a(2L) > accuracy_b(2L) > accuracy_c(2L) in 4 of 5 seeds"


@pytest.mark.parametrize(
    ("held", "expected"), [(5, "supported"), (4, "supported"), (3, "not resolved"), (1, "contradicted")]
)
def test_verdicts_by_the_number_of_seeds_that_show_it(held, expected):
    found = verdict(held)
    assert (found.verdict, found.gate, found.seeds, found.unit) == (expected, "none", 5, "of seeds")
    assert found.estimate == held / 5
    assert found.low < found.estimate <= found.high


def test_ties_show_neither_the_order_nor_another():
    """Where nothing is right anywhere, nothing was measured."""
    tied = results(0, others=0.5)
    assert ORDER.assess(tied).p_support == ORDER.assess(tied).p_contradict == 1.0
    assert ORDER.assess(results(4, others=0.5)).p_support == ORDER.assess(results(4)).p_support


def test_p_values_are_binomial():
    assert ORDER.assess(results(4)).p_support == pytest.approx((5 * 5 + 1) / 6**5)
    assert ORDER.assess(results(1)).p_contradict == pytest.approx(0.2**5 + 5 * 0.8 * 0.2**4)
    assert ORDER.assess(results(3)).p_support == ORDER.assess(results(4)).p_contradict == 1.0


def test_fewer_seeds_resolve_nothing_and_more_change_nothing():
    assert "3 seeds have all its results" in verdict(3, seeds=3).reason
    assert verdict(3, seeds=3).verdict == "not resolved"
    assert ORDER.assess(results(4, seeds=9)).p_support == ORDER.assess(results(4)).p_support
    with pytest.raises(MissingResult):
        in_order(accuracy("a", 2), accuracy("d", 2), seeds=1, of=1).assess(results(1))


def test_accuracy_is_averaged_over_lengths_and_needs_no_gate():
    contrast = accuracy("a", 1.5, 2) - accuracy("c", 1.5, 2)
    assert str(contrast) == "accuracy_a(3L/2, 2L) - accuracy_c(3L/2, 2L)"
    assert contrast.per_seed(results(5))[0][0] == pytest.approx(0.35)
    assert contrast.unit(results(5)) == "share"
    ungated, gated = (Claim(str(gate), "", at_least(contrast, 0.1), gate=gate) for gate in (None, ()))
    judged, unjudged = evaluate_claims([ungated, gated], results(5))
    assert (judged.verdict, judged.gate) == ("supported", "none")
    assert unjudged.verdict == "not resolved", "there are no fixed targets to gate by"


@pytest.mark.parametrize(("contrasts", "seeds", "of"), [(("a",), 1, 2), (("a", "b"), 3, 2), (("a", "b"), 0, 2)])
def test_an_order_that_cannot_be_is_refused(contrasts, seeds, of):
    with pytest.raises(ValueError, match=r"at least two|cannot be"):
        in_order(*(accuracy(name, 2) for name in contrasts), seeds=seeds, of=of)
