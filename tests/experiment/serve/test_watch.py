"""Run folders, whole and broken, read again only where they changed."""

from __future__ import annotations

import os
import shutil

import pytest

from jaxgpt.experiment.serve.reading import log_part
from jaxgpt.experiment.serve.watch import NotFound, Run, Store
from jaxgpt.lease import locked
from tests.experiment.serve.conftest import Shelf, write


def test_what_is_left_of_a_run(shelf: Shelf):
    folder = shelf.run(lines=10, state="running")
    write(folder / "status.json", {"state": "running", "step": 100, "steps": 300})
    with locked(folder):
        run = Store(shelf.root).run("trial", folder.name)
    assert run.state == "running"
    assert run.speed == 1280
    assert run.seconds_left == pytest.approx(200 * 128 / 1280)
    run.refresh()
    assert run.state == "interrupted", "nobody holds the folder now"
    assert run.seconds_left is None


def test_a_run_in_quarantine_has_failed_and_says_why(shelf: Shelf):
    folder = shelf.run(lines=10, state="interrupted")
    run = Store(shelf.root).run("trial", folder.name)
    with locked(folder):
        run.refresh()
        assert run.state == "running", "before it says so itself"
    run.folder.quarantine("killed by SIGKILL (out of memory?), 3 times")
    run.refresh()
    assert (run.state, run.message) == ("failed", "killed by SIGKILL (out of memory?), 3 times")
    run.folder.release()
    run.refresh()
    assert (run.state, run.message) == ("interrupted", "")


BROKEN = {
    "request.json": [
        "{",
        "[1]",
        "null",
        '{"config": 3, "evaluations": 7, "variant": ["x"], "seed": "two"}',
        "[" * 100_000,
    ],
    "status.json": ["", '{"state": 5, "step": "x", "steps": {}}', '{"state": "flying"}', "\xff\xfe"],
    "evaluation.json": [
        '{"h": 3}',
        "[]",
        '{"h": {"measurements": [{}, 4, {"metric": 1, "value": "x", "context": -1}]}}',
    ],
    "metrics.jsonl": ["\0\0\n[]\n{}\n3\n", '{"step": 1e400}\n{"step": true}\n{"step": 1, "loss": "x", "tokens": []}\n'],
    "environment.json": ["{"],
}


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in BROKEN.items() for text in texts])
def test_a_broken_file_is_a_run_with_a_problem_or_without_the_part(shelf: Shelf, name: str, content: str):
    folder = shelf.run()
    (folder / name).write_bytes(content.encode("latin-1"))
    run = Store(shelf.root).run("trial", folder.name)
    run.environment()
    said = (run.variant, run.seed, run.state, run.step, run.steps, run.loss, run.seconds_left, run.evaluated)
    assert all(part is None or isinstance(part, str | int | float | tuple) for part in said)
    if name == "status.json":
        assert run.state == "unknown"
    if content in ("{", "", "[1]"):
        assert any(name in problem for problem in run.problems)


def test_files_that_are_no_files_are_passed_over(shelf: Shelf):
    folder = shelf.run()
    for name in ("metrics.jsonl", "log.txt", "status.json"):
        (folder / name).unlink()
    (folder / "metrics.jsonl").mkdir()
    os.mkfifo(folder / "log.txt")  # opening it would wait for a writer
    os.mkfifo(folder / "status.json")
    run = Store(shelf.root).run("trial", folder.name)
    assert (run.state, run.metrics.training) == ("pending", [])
    assert log_part(run.folder.log) == {"text": "", "start": 0, "end": 0}


def test_a_run_without_a_request_is_shown_with_its_configuration(shelf: Shelf):
    folder = shelf.root / "single" / "laptop-1234abcd"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 3\ntrain: {steps: 50}\n")
    (run,) = Store(shelf.root).runs("single")
    assert (run.variant, run.seed, run.steps, run.state) == ("laptop", 3, 50, "pending")
    assert any("request.json" in problem for problem in run.problems)


def test_runs_that_vanish_are_gone(full: Shelf):
    store = Store(full.root)
    assert len(store.runs("trial")) == 7
    run = store.run("trial", "rope-seed0-0abc")
    shutil.rmtree(run.folder.path)
    run.refresh()
    assert (run.state, run.metrics.training, run.config) == ("pending", [], {})
    assert len(store.runs("trial")) == 6
    with pytest.raises(NotFound):
        store.run("trial", "rope-seed0-0abc")
    with pytest.raises(NotFound):
        store.runs("trail")


def test_folders_without_runs_are_no_experiments(full: Shelf):
    (full.root / "empty").mkdir()
    (full.root / ".hidden" / "run").mkdir(parents=True)
    write(full.root / ".hidden" / "run" / "request.json", {})
    (full.root / "file").write_text("")
    assert list(Store(full.root).experiments()) == ["trial"]
    assert "report" not in [run.name for run in Store(full.root).runs("trial")]


def test_a_run_is_read_again_only_where_a_file_changed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    run = Run(shelf.run(evaluated=("rope",)))
    run.refresh()
    before, asked = run.version, []
    monkeypatch.setattr(run.folder, "evaluations", lambda: asked.append(1) or {})
    run.refresh()
    assert run.version == before
    assert asked == []
    write(run.folder.path / "evaluation.json", {})
    run.refresh()
    assert run.version != before
    assert asked == [1]
