from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

from jaxgpt.experiment.report import Report, write_report
from jaxgpt.experiment.results import Results, read_results, read_timings

Make = Callable[..., Report]


def test_a_report_is_complete_and_repeats_byte_for_byte(make_report: Make, tmp_path: Path):
    report = make_report()
    index = write_report(report, tmp_path / "one" / "report")
    folder = index.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "about.json", "documents.csv", "extrapolation.png", "index.html", "loss_by_position.png", "perplexity.png",
        "perplexity_non_overlapping.png",
        "report.md", "results.csv", "timings.csv", "training.png", "verdicts.json",
    ]  # fmt: skip
    assert read_results(folder / "results.csv") == list(report.results.rows)
    assert len(read_timings(folder / "timings.csv")) == len(report.timings)
    assert [one["claim"] for one in json.loads((folder / "verdicts.json").read_text())] == [
        "headline", "flat", "rises", "t5",
    ]  # fmt: skip
    rows = list(report.results.rows)
    random.Random(0).shuffle(rows)
    shuffled = dataclasses.replace(report, results=Results(rows, 128, report.results.variants))
    other = write_report(shuffled, tmp_path / "two").parent
    for path in folder.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_figures_of_an_earlier_report_do_not_stay(make_report: Make, tmp_path: Path):
    report = make_report()
    (tmp_path / "training.png").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    row = {"variant": "rope", "trial": 0, "train.lr": 0.01, "loss": 3.0, "state": "finished", "run": "search-rope-1"}
    write_report(dataclasses.replace(report, trials=[row]), tmp_path)
    assert (tmp_path / "search.csv").read_text().splitlines()[1] == "rope,0,0.01,3.0,finished,search-rope-1"
    write_report(dataclasses.replace(report, curves=[]), tmp_path)
    assert not (tmp_path / "training.png").exists()
    assert not (tmp_path / "search.csv").exists()
    assert (tmp_path / "notes.txt").exists()
