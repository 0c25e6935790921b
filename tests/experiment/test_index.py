"""What was started last is found again without planning."""

import dataclasses
import subprocess
import sys

from jaxgpt.experiment.index import INDEX, Index, Listed, listed, read_index, write_index


def test_it_comes_back_as_it_was_written(toy):
    plan = toy.plan()
    index = Index({"scale": "small"}, {"type": "local", "retries": 1}, listed([plan]), "command")
    write_index(plan.directory, index)
    found = read_index(plan.directory)
    assert (found.options, found.executor, found.command) == (index.options, index.executor, "command")
    assert [(run.name, run.wanted) for run in found.runs] == [(run.name, run.wanted) for run in index.runs]
    assert [run.folder.path for run in found.runs] == [run.folder.path for run in plan.runs]
    assert found.time


def test_none_or_another_versions_is_none(tmp_path):
    assert read_index(tmp_path) is None
    (tmp_path / INDEX).write_text('{"runs": [{"name": "x"}]}')
    assert read_index(tmp_path) is None
    (tmp_path / INDEX).write_text("{")
    assert read_index(tmp_path) is None


def test_states_are_shown_without_jax(toy):
    plan = toy.plan()
    write_index(plan.directory, Index({}, {"type": "local"}, listed([plan])))
    code = f"""
import sys
from pathlib import Path
from jaxgpt.experiment.cli import main
code = main(["status", "--exp", "toy", "--runs-dir", {str(toy.runs)!r}], Path(), Path())
assert "jax" not in sys.modules, "jax was imported"
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 runs: 5 pending" in done.stdout


def test_a_run_that_may_diverge_is_finished_when_it_did(toy):
    run = toy.plan().runs[1]
    run.folder.path.mkdir(parents=True)
    run.folder.update_status(state="failed", diverged=True)
    assert not Listed.of(run).is_finished()
    trial = Listed(run.name, run.kind, run.variant, 0, (), run.folder, may_diverge=True)
    assert trial.state() == "finished"


def test_a_run_that_its_study_pruned_is_finished(toy):
    run = dataclasses.replace(toy.plan().runs[1], study="rope-1234")
    run.folder.path.mkdir(parents=True)
    run.folder.update_status(state="interrupted", step=2, steps=4)
    assert (Listed.of(run).state(), run.is_finished()) == ("interrupted", False)
    run.folder.prune("rope-1234")
    assert (Listed.of(run).state(), run.is_finished()) == ("finished", True)
    other = dataclasses.replace(run, study="rope-5678")
    assert (Listed.of(other).state(), other.is_finished()) == ("interrupted", False)
