"""Tables of many arms: by training and test length, and ranked."""

import math

from jaxgpt.experiment.report import tables
from jaxgpt.experiment.results import Results, Row


def row(variant, context, value, seed=0, metric="fixed_target_nll"):
    return Row("e", variant, seed, metric, context, value, "nats/token")


def test_a_row_per_training_and_test_length(make_report):
    rows = [row(f"{kind}-{length}", length * k, math.log(10 + k), metric="non_overlapping_nll")
            for kind in ("rope", "alibi") for length in (8, 16) for k in (1, 2)]  # fmt: skip
    rows = [one for one in rows if (one.variant, one.context) != ("alibi-16", 32)]
    lengths = {one.variant: int(one.variant.split("-")[1]) for one in rows}
    groups = {variant: variant.split("-")[0] for variant in lengths}
    results = Results(rows, 8, lengths=lengths)
    (table,) = tables.by_train_length(make_report(results=results, groups=groups))
    assert table.columns == ["train / test", "rope", "alibi"]
    assert table.rows == [
        ["8 / 8", "11.00", "11.00"],
        ["8 / 16", "12.00", "12.00"],
        ["16 / 16", "11.00", "11.00"],
        ["16 / 32", "12.00", "–"],
    ]
    assert tables.measured(make_report(results=results))[0].columns == ["variant", "8", "16", "32"], "L is not one"


def test_no_groups_no_table_and_few_arms_no_ranking(make_report):
    assert tables.overviews(make_report()) == []


def test_the_ranking_is_by_mean_with_paired_differences(make_report):
    rows = [row(f"v{i}", 8, 3 + 0.1 * i + 0.5 * seed, seed) for i in range(8) for seed in range(3)]
    rows += [row("v3", 32, 1.0, seed) for seed in range(3)] + [row("v5", 32, 2.0)]
    at_home, far = tables.ranking(make_report(results=Results(rows, 8), labels={"v0": "first"}))
    assert at_home.title == "Ranking with context L"
    assert [one[:2] for one in at_home.rows[:2]] == [["1", "first"], ["2", "v1"]]
    assert at_home.rows[1][3].startswith("0.100 [0.1")
    assert at_home.rows[0][3] == "–"
    assert "[" in at_home.rows[1][2], "between seeds there is spread, between arms of one seed none"
    assert (far.title, [one[1] for one in far.rows]) == ("Ranking with context 4L", ["v3", "v5"])
