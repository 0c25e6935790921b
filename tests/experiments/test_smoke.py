"""Every experiment runs at the smallest scale, and what its report says follows from its results.csv."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgpt.experiment.results import read_results
from jaxgpt.experiment.spec import list_experiments

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", list_experiments(ROOT / "experiments"))
def test_smoke(name, tmp_path):
    command = [sys.executable, ROOT / "experiments" / "run.py", "--exp", name, "--scale", "smoke", "--seeds", "1"]
    done = subprocess.run([*command, "--runs-dir", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = tmp_path / name / "report"
    rows = read_results(report / "results.csv")
    assert len({row.variant for row in rows}) >= 2
    assert {row.experiment for row in rows} == {name}
    verdicts = json.loads((report / "verdicts.json").read_text(encoding="utf-8"))
    assert verdicts
    assert all(one["verdict"] == "not resolved" for one in verdicts), "one seed decides nothing"
    text = (report / "report.md").read_text(encoding="utf-8")
    assert all(one["claim"] in text for one in verdicts)
    assert (report / "index.html").stat().st_size > 100_000
    assert list(report.glob("*.png"))
