from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from jaxgpt.experiment.documents import Noise
from jaxgpt.experiment.report import Report, tables
from jaxgpt.experiment.results import Results, Row

Make = Callable[..., Report]


def test_measured_has_every_protocol_with_the_baseline_below(make_report: Make):
    found = tables.measured(make_report())
    assert [table.title for table in found] == [
        "Fixed targets: perplexity",
        "Fixed targets: nats per token",
        "Fixed targets: bits per byte",
        "Non-overlapping windows: perplexity",
        "Non-overlapping windows: nats per token",
        "Non-overlapping windows: bits per byte",
    ]
    first = found[0]
    assert first.columns == [
        "variant", "32 (L/4)", "64 (L/2)", "128 (L)", "256 (2L)", "512 (4L)", "1024 (8L)", "2048 (16L)",
    ]  # fmt: skip
    assert [row[0] for row in first.rows] == ["sinusoidal", "RoPE", "ALiBi", "nope †", "yarn", "5-gram"]
    assert float(first.rows[1][3].split()[0]) == pytest.approx(math.exp(3.164), rel=0.05)
    assert first.rows[1][3].count("[") == 1
    assert first.rows[-1][1] == "37.34", "a baseline without seeds has no interval"
    assert "† fails the context gate" in first.note
    assert found[5].rows[0][1].startswith("1.9")


def test_a_baseline_measured_beside_each_seed_has_no_interval_either(make_report: Make):
    rows = [Row("e", "5-gram", seed, "fixed_target_nll", 8, 3.62, "nats/token") for seed in range(3)]
    rows.append(Row("e", "rope", 0, "fixed_target_nll", 16, 8.0, "nats/token"))
    table = tables.measured(make_report(results=Results(rows, 8)))[0]
    assert table.rows == [["RoPE", "–", "2981.0"], ["5-gram", "37.34", "–"]]


def test_verdicts_and_what_is_shown_stand_apart(make_report: Make):
    report = make_report()
    judged = tables.verdicts(report)
    assert [row[:2] for row in judged.rows] == [
        ["supported", "headline"],
        ["supported", "flat"],
        ["contradicted", "rises"],
        ["not resolved", "t5"],
    ]
    assert judged.rows[3][3] == "–"
    assert "Headline claims (2) are adjusted by Holm." in judged.note
    shown = tables.shown(report)
    assert [row[0] for row in shown.rows] == ["home"]
    assert shown.rows[0][1].startswith("-0.2")
    assert shown.rows[0][1].endswith("nats/token")


def test_gates(make_report: Make):
    rows = {row[0]: row for row in tables.gates(make_report()).rows}
    assert rows["RoPE"][2] == "passes"
    assert rows["nope"][2] == "fails †"
    unknown = tables.gates(make_report(seeds=1)).rows[0]
    assert unknown[2:] == ["unknown", "one seed cannot tell"]


def test_runs_show_what_a_clock_measured_beside_them(make_report: Make):
    table = tables.runs(make_report())
    assert table.columns == ["variant", "parameters", "learning rate", "step time (ms)"]
    assert table.rows[1] == ["RoPE", "921,344", "0.002", "311"]
    assert table.rows[4] == ["yarn", "921,344", "0.002", "–"]
    bare = tables.runs(make_report(runs=[]))
    assert [row[0] for row in bare.rows] == ["RoPE", "ALiBi", "sinusoidal", "nope"]
    odd = tables.runs(make_report(runs=[{"variant": "rope", "trained": True, "note": None, "kind": "x"}], timings=[]))
    assert odd.rows == [["RoPE", "yes", "–", "x"]]
    assert odd.note == ""


def test_evaluation_noise_has_a_table_of_its_own(make_report: Make):
    assert not tables.noise(make_report()).rows
    table = tables.noise(make_report(noise=[Noise("R_rope(4L)", 1.9, 1.8, 2.0, 25)]))
    assert table.rows == [["R_rope(4L)", "1.9 [1.8, 2]", "25"]]
    assert "another choice of held-out documents" in table.note


def test_a_search_has_tables_of_its_best_and_of_its_trials(make_report: Make):
    trial = {"variant": "rope", "trial": 0, "train.lr": 0.0123456, "model.qk_norm": True, "loss": 3.125}
    trials = [{**trial, "state": "finished", "run": "search-rope-1"}, {**trial, "loss": None, "state": "failed"}]
    best = [{"variant": "rope", "train.lr": 0.0123456, "loss": 3.125, "trials": 2, "tokens": 12345}]
    report = make_report(search=best, trials=trials, labels={"rope": "RoPE"})
    found = tables.search(report)
    assert list(found.columns) == ["variant", "train.lr", "loss", "trials", "tokens"]
    assert found.rows == [["RoPE", "0.0123456", "3.125", "2", "12,345"]]
    table = tables.trials(report)
    assert list(table.columns) == ["variant", "trial", "train.lr", "model.qk_norm", "loss", "state"]
    assert [row[-3:] for row in table.rows] == [["yes", "3.125", "finished"], ["yes", "–", "failed"]]
    assert not tables.search(make_report()).rows
