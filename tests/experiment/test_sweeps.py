"""Sweeps with real training: several launchers at once, and one to which everything happens."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.experiment.launching import call, start
from tests.needs import is_missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = ("--set", "train.steps=60", "train.checkpoint_every=10", "train.log_every=5", "train.validate_every=20")
ROOT = Path(__file__).resolve().parents[2]


def finishes(text):
    """How often an attempt at a run finished it."""
    return sum(json.loads(line).get("state") == "finished" for line in text.splitlines())


def test_two_launchers_at_once_execute_each_run_once(toy):
    alone, shared = toy.root / "alone", toy.root / "shared"
    assert call(toy.root, alone, "--workers", "2", *LONG)[0] == 0
    both = [start(toy.root, shared, "--workers", "2", *LONG, output=f"{name}.txt") for name in "ab"]
    assert [launcher.wait(timeout=300) for launcher in both] == [0, 0], (toy.root / "a.txt").read_text()
    attempts = {path.parent.name: path.read_text() for path in shared.glob("toy/*/attempts.jsonl")}
    assert len(attempts) == 5
    assert {finishes(text) for text in attempts.values()} == {1}
    assert {len(text.splitlines()) for text in attempts.values()} == {2}, "one beginning, one end"
    results = [(runs / "toy" / "report" / "results.csv").read_bytes() for runs in (alone, shared)]
    assert results[0] == results[1]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk of memory")
def test_chaos(toy):
    arguments = ("--workers", "2", "--seeds", "12", *LONG)
    calm, rough = toy.root / "calm", toy.root / "rough"
    code, output = call(toy.root, calm, *arguments, timeout=600)
    assert code == 0, output
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    driver = [sys.executable, str(Path(__file__).with_name("chaos.py")), str(toy.root), str(rough), "1", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*namespace, *driver], env=environment, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        is_missing(f"no disk can be mounted here ({done.stderr.strip()})")
    assert done.returncode == 0, done.stderr + (toy.root / "output.txt").read_text()[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found["done"], found["codes"], Counter(found["after"].values()))
    assert min(found["done"].values()) >= 1, "every kind of misfortune came"
    assert len(found["after"]) == 25
    unfinished = [state for state in found["after"].values() if state != "finished"]
    assert all(state.startswith("failed: ") and len(state) > len("failed: ") for state in unfinished), unfinished
    assert found["codes"][-1] == 0, found["output"]
    assert {name: finishes(text) for name, text in found["attempts"].items()} == dict.fromkeys(found["after"], 1)
    assert found["results"] == (calm / "toy" / "report" / "results.csv").read_text()
