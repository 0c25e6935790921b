"""The bootstrap over documents against hand calculation, and its coverage."""

import numpy as np
import pytest

from jaxgpt.experiment.claims import NO, Claim, R, all_of, at_least, at_most, nll, show
from jaxgpt.experiment.documents import DocumentLosses, evaluation_noise
from jaxgpt.experiment.results import DocumentLoss, MissingResult, Results, Row

METRIC, L = "fixed_target_nll", 8


def drawn(count=20, seeds=2, spread=0.3, gap=0.1, generator=0, contexts=(8, 32)):
    """Two arms on the same documents, whose difficulty they share; `b` is `gap` worse in every document."""
    random = np.random.default_rng(generator)
    hard, tokens = random.normal(3, spread, count), random.integers(10, 30, count)
    losses, rows = [], []
    for variant, extra in (("a", 0.0), ("b", gap)):
        for seed in range(seeds):
            for context in contexts:
                values = hard + extra + random.normal(0, 0.01, count)
                totals = values * tokens
                losses += [DocumentLoss(variant, seed, METRIC, context, d, totals[d], tokens[d]) for d in range(count)]
                rows.append(Row("e", variant, seed, METRIC, context, totals.sum() / tokens.sum(), "nats/token"))
    return DocumentLosses(losses), Results(rows, L)


def test_a_loss_varies_with_the_documents_and_a_paired_difference_does_not():
    losses, results = drawn()
    alone, paired = losses.noise(nll("a", 1), results), losses.noise(nll("b", 1) - nll("a", 1), results)
    assert alone.low < alone.estimate < alone.high
    assert alone.high - alone.low > 0.15, "30% spread over 20 documents"
    assert paired.high - paired.low < 0.02
    assert paired.estimate == pytest.approx(0.1, abs=0.01)
    assert alone.documents == 20


def test_the_same_losses_give_the_same_interval():
    assert drawn()[0].noise(nll("a", 1), drawn()[1]) == drawn()[0].noise(nll("a", 1), drawn()[1])


def test_what_was_measured_once_is_paired_with_every_seed():
    losses, results = drawn()
    once = [row for row in results.rows if (row.variant, row.seed) != ("a", 1)]
    given = Results(once, L, given=["a"])
    noise = losses.noise(nll("b", 1) - nll("a", 1), given)
    assert noise.estimate == pytest.approx(0.1, abs=0.01)
    assert noise.high - noise.low < 0.02
    alone = losses.noise(nll("a", 1), given)
    assert alone.estimate == given.values("a", METRIC, 8)[0]


def test_ratios_are_ratios():
    losses, results = drawn(gap=0.2)
    noise = losses.noise(R("b", 4) / R("a", 4), results)
    assert noise.low < 1.0 < noise.high
    assert noise.text == "R_b(4L) / R_a(4L)"


def test_the_interval_covers_the_mean_of_all_documents():
    covered = 0
    for generator in range(100):
        losses, results = drawn(count=40, seeds=1, generator=generator)
        noise = losses.noise(nll("a", 1), results, draws=400)
        covered += noise.low <= 3.0 <= noise.high
    assert covered >= 88, "a percentile interval over 40 documents covers about 93%"


def test_what_was_not_kept_or_is_too_little_is_told():
    losses, results = drawn(count=4)
    with pytest.raises(MissingResult, match="4 documents are too few"):
        losses.noise(nll("a", 1), results)
    few, _ = drawn(contexts=(8,))
    with pytest.raises(MissingResult, match="a: fixed_target_nll at context 32 was not kept by document"):
        few.noise(nll("a", 4), drawn()[1])
    one, two = drawn(count=10), drawn(count=12)
    mixed = DocumentLosses([])
    mixed._found = {**one[0]._found, **{key: two[0]._found[key] for key in two[0]._found if key[0] == "b"}}
    with pytest.raises(MissingResult, match="different documents"):
        mixed.noise(nll("a", 1) - nll("b", 1), one[1])


def test_all_contrasts_of_the_claims_each_once():
    losses, results = drawn()
    flat = Claim("flat", "", all_of(at_most(R("a", 4), 1.05), at_most(NO("a", 4), 1.02)))
    claims = [flat, Claim("worse", "", at_least(R("a", 4), 9)), Claim("shown", "", show(nll("b", 1) - nll("a", 1)))]
    assert [contrast.text for contrast in flat.test.contrasts] == ["R_a(4L)", "NO_a(4L)"]
    found = evaluation_noise(claims, losses, results)
    assert [noise.text for noise in found] == ["R_a(4L)", "nll_b(L) - nll_a(L)"], "windows were not kept by document"
