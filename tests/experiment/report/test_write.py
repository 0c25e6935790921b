from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from jaxgpt.errors import ConfigError, UserError
from jaxgpt.experiment.report import FORMATS, Report, write_report
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


AGAIN = """import sys
from pathlib import Path
from jaxgpt.experiment.report import read_report, write_report

write_report(read_report(Path(sys.argv[1]), []), Path(sys.argv[2]), ["svg", "pdf", "latex"])
"""


def test_other_formats_are_whole_and_repeat_byte_for_byte_in_another_process(make_report: Make, tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    write_report(make_report(curves=[], verdicts=[]), one, ["latex", "svg", "pdf"])
    environment = {**os.environ, "PYTHONHASHSEED": "7"}  # sets have another order there
    subprocess.run([sys.executable, "-c", AGAIN, one, two], env=environment, check=True)
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name
    pictures = {path.stem for path in one.glob("*.png")}
    assert len(pictures) == 4
    assert {path.stem for path in one.glob("*.svg")} == {path.stem for path in one.glob("*.pdf")} == pictures
    assert (one / "results.tex").read_text().count(r"\begin{table}") == 1
    for path in one.glob("*.svg"):
        root = ElementTree.fromstring(path.read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10
    for path in one.glob("*.pdf"):
        content = path.read_bytes()
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
        assert int(content.split(b"startxref")[1].split()[0]) == content.rindex(b"xref\n0 ")
        assert b"CreationDate" not in content
        assert b"/Type3" not in content


def test_a_folder_never_holds_files_of_two_reports(make_report: Make, tmp_path: Path):
    report = make_report()
    rows = [row for row in report.results.rows if row.metric == "non_overlapping_nll"]
    report = dataclasses.replace(report, results=Results(rows, 128))
    write_report(report, tmp_path, ["latex", "svg", "pdf"])
    (tmp_path / "paper.pdf").write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    assert {"results.tex", "training.svg", "training.pdf", "perplexity_non_overlapping.pdf"} <= before
    write_report(dataclasses.replace(report, curves=[]), tmp_path, ["svg"])
    gone = before - {path.name for path in tmp_path.iterdir()}
    assert gone == {
        "results.tex", "training.svg", "training.pdf", "training.png", "perplexity_non_overlapping.pdf",
    }  # fmt: skip


def test_a_format_that_does_not_exist(make_report: Make, tmp_path: Path):
    with pytest.raises(ConfigError, match="--export: no format is called 'parket'; did you mean 'parquet'"):
        write_report(make_report(), tmp_path / "report", ["svg", "parket"])
    assert not (tmp_path / "report").exists()


def test_a_library_that_is_not_installed_is_missed_before_anything_is_written(make_report: Make, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"results.parquet needs the extra parquet: pip install 'jaxgpt\[parquet\]'"):
        write_report(make_report(), tmp_path / "report", ["parquet"])
    assert not (tmp_path / "report").exists()


@pytest.mark.torch  # the extra parquet, which hf brings
def test_parquet_beside_csv(make_report: Make, tmp_path: Path):
    write_report(make_report(), tmp_path, FORMATS)
    assert (tmp_path / "results.parquet").read_bytes().startswith(b"PAR1")
    write_report(make_report(), tmp_path, ["csv"])
    assert not (tmp_path / "results.parquet").exists()
