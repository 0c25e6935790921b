"""The recorded results: every table and verdict on a page follows from the numbers stored beside it."""

import json
from pathlib import Path

import pytest

from jaxgpt.experiment.report import read_report
from jaxgpt.experiment.report.markdown import markdown
from jaxgpt.experiment.spec import load_experiment

ROOT = Path(__file__).resolve().parents[2] / "experiments"
RECORDED = sorted(path.parent for path in (ROOT / "results").glob("*/verdicts.json"))


def tables(text):
    """The lines of all tables of a Markdown text."""
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_the_page_follows_from_the_stored_numbers(folder):
    experiment = load_experiment(folder.name, ROOT)
    report = read_report(folder, experiment.claims)
    stored = (folder / "report.md").read_text(encoding="utf-8")
    assert tables(markdown(report, {})) == tables(stored)
    verdicts = [one.to_json() for one in report.verdicts if one.verdict != "shown"]
    assert verdicts == json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_page_says_how_it_was_made_and_what_was_learned(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    command = f"python experiments/run.py --exp {folder.name}"
    assert f"\n    {command}\n" in text
    assert f"\n{command}\n" in (folder / "report.md").read_text(encoding="utf-8")
    assert "What was learned:" in text
    assert "What stayed unresolved:" in text
