"""Files as runs leave them, whole and broken, and read again only where they changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from jaxgpt.experiment.serve.watch import LOG_END, Metrics, NotFound, Run, Store, json_lines, log_part, number
from jaxgpt.experiment.store import RunFolder
from jaxgpt.files import locked
from tests.experiment.serve.conftest import Shelf, line, write


def both(metrics: Metrics) -> list[tuple[int, float]]:
    """Steps and losses as `RunFolder.curve` gives them: training before validation of the same step."""
    found = [(one.step, 0, one.loss) for one in metrics.training]
    found += [(one.step, 1, one.loss) for one in metrics.validation]
    return [(step, loss) for step, _, loss in sorted(found)]


def test_a_curve_is_that_of_the_run_folder_while_it_grows(shelf: Shelf):
    folder = shelf.run(lines=12)
    metrics = Metrics(folder / "metrics.jsonl")
    for text in (
        "",
        line(125, 3.0),
        line(60, 2.5),
        "not json\n",
        '{"step": 130, "validation_loss": 3.1}\n',
        line(140, 1),
    ):
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(text)
        metrics.refresh()
        entries = RunFolder(folder).curve()
        assert both(metrics) == [(one["step"], one.get("loss", one.get("validation_loss"))) for one in entries]
    assert metrics.broken == 1


def test_only_what_was_appended_is_read_and_a_line_half_written_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(10, 4.0))
    metrics = Metrics(path)
    added: list[bytes] = []
    monkeypatch.setattr(metrics, "_add", added.append)
    metrics.refresh()
    whole = line(20, 3.0)
    for part in (whole[:9], whole[9:]):
        with path.open("a") as file:
            file.write(part)
        metrics.refresh()
    metrics.refresh()
    assert [json.loads(text)["step"] for text in added] == [10, 20]
    assert metrics.version == 3


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_began_anew_is_read_anew(tmp_path: Path, replaced: bool):
    path, other = tmp_path / "metrics.jsonl", tmp_path / "other"
    path.write_text("".join(line(step, 4.0) for step in (10, 20, 30)))
    metrics = Metrics(path)
    metrics.refresh()
    longer = "".join(line(step, 2.0) for step in (10, 20, 30, 40, 50))
    if replaced:
        other.write_text(longer)
        os.replace(other, path)
    else:
        path.write_text(longer)
    metrics.refresh()
    assert [(one.step, one.loss) for one in metrics.training] == [(step, 2.0) for step in (10, 20, 30, 40, 50)]
    path.unlink()
    metrics.refresh()
    assert metrics.training == []


def test_seconds_go_on_where_a_second_process_counts_from_its_own_start(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    seconds = {10: 5.0, 20: 9.0, 30: 4.0, 40: 8.0}
    path.write_text("".join(json.dumps({"step": s, "loss": 1, "seconds": t}) + "\n" for s, t in seconds.items()))
    metrics = Metrics(path)
    metrics.refresh()
    assert [one.seconds for one in metrics.training] == [5.0, 9.0, 13.0, 17.0]


def test_numbers_are_finite_numbers():
    assert [number(value) for value in (1, 2.5, True, "3", None, float("nan"), float("inf"), 10**400)] == [
        1,
        2.5,
        *[None] * 6,
    ]


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


def test_a_log_is_shown_from_its_end_and_then_as_it_grows(tmp_path: Path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"line {n:06}\n" for n in range(20_000)))
    part = log_part(path)
    assert part["end"] == path.stat().st_size
    assert LOG_END - 20 < len(part["text"]) <= LOG_END
    assert part["text"].startswith("line ")
    with path.open("ab") as file:
        file.write("more é".encode()[:-1])  # a letter half written
    grown = log_part(path, part["end"])
    assert (grown["text"], grown["start"]) == ("more ", part["end"])
    with path.open("ab") as file:
        file.write("é".encode()[-1:])
    assert log_part(path, grown["end"])["text"] == "é"
    path.write_text("anew\n")
    assert log_part(path, grown["end"]) == {"text": "anew\n", "start": 0, "end": 5}


def test_json_lines_leave_out_what_is_none(tmp_path: Path):
    path = tmp_path / "attempts.jsonl"
    assert json_lines(path) == []
    path.write_text('{"host": "a"}\nbroken\n[1]\n{"host": "b"}\n{"ho')
    assert json_lines(path) == [{"host": "a"}, {"host": "b"}]
    assert json_lines(path, most=2) == [{"host": "b"}]


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
