from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from jaxgpt.experiment.contrasts import NO, R, all_of, any_of, at_least, at_most, nll, perplexity, show, time_of
from jaxgpt.experiment.results import MissingResult, Results, Row, Timing


def rows(variant: str, values: dict[tuple[int, int], float], metric: str = "fixed_target_nll") -> list[Row]:
    return [Row("e", variant, seed, metric, context, value, "nats/token") for (seed, context), value in values.items()]


def test_rules_read_as_they_are_written():
    assert str(at_least(R("rope", 4) / R("alibi", 4), 1.3)) == "R_rope(4L) / R_alibi(4L) >= 1.3"
    assert str(at_most(perplexity("yarn", 4) / perplexity("rope", 4), 0.8)) == "PPL_yarn(4L) / PPL_rope(4L) <= 0.8"
    assert str(at_least(nll("nope", 1) - nll("rope", 0.25), 0.02)) == "nll_nope(L) - nll_rope(L/4) >= 0.02 nats"
    flat = all_of(at_most(R("alibi", 4), 1.05), at_most(NO("alibi", 4), 1.02))
    assert str(flat) == "R_alibi(4L) <= 1.05 and NO_alibi(4L) <= 1.02"
    either = any_of(at_least(R("rope", 4), 1.5), at_least(NO("rope", 4), 1.25))
    assert str(all_of(flat, either)).endswith("and (R_rope(4L) >= 1.5 or NO_rope(4L) >= 1.25)")
    assert str(any_of(flat, either)).startswith("(R_alibi(4L) <= 1.05 and NO_alibi(4L) <= 1.02) or ")
    assert str(R("a", 2) / (R("b", 2) / R("c", 2))) == "R_a(2L) / (R_b(2L) / R_c(2L))"
    assert str(show(nll("rope", 1))) == "nll_rope(L), shown and not judged"


def test_contrasts_are_linear_and_paired_by_seed():
    results = Results(
        rows("rope", {(0, 8): 3.0, (0, 32): 3.5, (1, 8): 2.0, (1, 32): 2.6})
        + rows("alibi", {(0, 8): 3.1, (0, 32): 3.2, (1, 8): 2.1, (1, 32): 2.3}),
        train_length=8,
    )
    values, notes = (R("rope", 4) / R("alibi", 4)).per_seed(results)
    assert values == pytest.approx({0: 0.4, 1: 0.4})
    assert notes == ()
    part = at_least(R("rope", 4) / R("alibi", 4), 1.3).assess(results).deciding
    assert part.interval.mean == pytest.approx(math.exp(0.4))
    difference = at_least(nll("alibi", 1) - nll("rope", 1), 0.02).assess(results).deciding
    assert difference.interval.mean == pytest.approx(0.1)
    assert difference.unit == "nats/token"


def test_seeds_without_all_terms_are_left_out_and_named():
    results = Results(rows("rope", {(0, 8): 3.0, (1, 8): 2.0}) + rows("alibi", {(1, 8): 2.1, (2, 8): 2.5}), 8)
    values, notes = (nll("rope", 1) - nll("alibi", 1)).per_seed(results)
    assert list(values) == [1]
    assert notes == ("seed 0 left out: alibi has no result", "seed 2 left out: rope has no result")


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        (nll("rope", 4), "rope: fixed_target_nll was not measured at context 32"),
        (nll("rope", 1 / 3), r"rope: fixed_target_nll at context L/3 of L = 8 is no whole length"),
        (nll("bad", 1), "bad seed 0: fixed_target_nll at context 8 is nan"),
        (nll("rope", 1) - nll("late", 1), r"nll_rope\(L\) - nll_late\(L\): no seed has all its results"),
    ],
)
def test_what_is_missing_is_named(contrast, message: str):
    results = Results(
        rows("rope", {(0, 8): 3.0}) + rows("bad", {(0, 8): math.nan}) + rows("late", {(1, 8): 3.0}), train_length=8
    )
    with pytest.raises(MissingResult, match=message):
        contrast.per_seed(results)


def test_scales_do_not_mix():
    with pytest.raises(TypeError, match="ratios combine by /"):
        R("rope", 4) - R("alibi", 4)
    with pytest.raises(TypeError, match="differences by -"):
        nll("rope", 4) / perplexity("alibi", 4)
    with pytest.raises(ValueError, match="must be positive"):
        at_most(R("rope", 4), 0.0)


def test_combinations_need_parts_that_can_be_judged():
    with pytest.raises(ValueError, match="at least two"):
        all_of(at_most(R("rope", 4), 1.0))
    with pytest.raises(ValueError, match="cannot be part of a rule"):
        any_of(at_most(R("rope", 4), 1.0), show(nll("rope", 1)))


def test_parts_are_tested_at_their_share_of_the_level(trial: Callable[..., Results]):
    results = trial()
    one, two = at_most(R("alibi", 4), 1.05), at_most(NO("alibi", 4), 1.02)
    p, q = one.assess(results), two.assess(results)
    both, either = all_of(one, two).assess(results), any_of(one, two).assess(results)
    assert both.p_support == pytest.approx(2 * max(p.p_support, q.p_support))
    assert either.p_support == pytest.approx(2 * min(p.p_support, q.p_support))
    assert both.p_contradict == min(1.0, 2 * min(p.p_contradict, q.p_contradict))
    assert either.p_contradict == min(1.0, 2 * max(p.p_contradict, q.p_contradict))
    assert len(both.parts) == 2
    weakest = max((p, q), key=lambda found: found.p_support)
    assert both.deciding == weakest.deciding
    assert both.seeds == 3


def test_contexts_are_multiples_of_each_variants_own_length():
    rows = [
        Row("e", name, 0, "fixed_target_nll", c, float(c), "nats/token") for name in ("a", "b") for c in (8, 16, 32)
    ]
    results = Results(rows, 8, lengths={"b": 16})
    assert nll("a", 2).per_seed(results)[0] == {0: 16.0}
    assert nll("b", 2).per_seed(results)[0] == {0: 32.0}
    with pytest.raises(MissingResult, match=r"b: fixed_target_nll at context L/32 of L = 16 is no whole length"):
        nll("b", 1 / 32).per_seed(results)


def test_times_are_compared_as_ratios():
    timings = [Timing(name, seed, "step_time", ms, "ms") for name, ms in (("a", 20.0), ("b", 25.0)) for seed in (0, 1)]
    found = at_most(time_of("b") / time_of("a"), 1.1).assess(Results([], 8, timings=timings))
    assert found.deciding.interval.mean == pytest.approx(1.25)
    assert str(at_most(time_of("b") / time_of("a"), 1.1)) == "step_time_b / step_time_a <= 1.1"
