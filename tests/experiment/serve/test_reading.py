"""Curves and logs as they grow, and files that begin anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jaxgpt.experiment.serve.reading import LOG_END, Metrics, json_lines, log_part, number
from jaxgpt.experiment.store import RunFolder
from tests.experiment.serve.conftest import Shelf, line


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
    assert metrics.problem == "metrics.jsonl: 1 lines cannot be read"


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


def test_a_curve_that_may_not_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(10, 4.0))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    metrics = Metrics(path)
    monkeypatch.setattr(Path, "open", refuse)
    metrics.refresh()
    assert metrics.training == []
    assert metrics.problem == "metrics.jsonl: cannot be read (Permission denied)"


def test_the_numbers_beside_the_loss_are_known_by_name(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(10, 4.0, gradient_norm=1.5, note="x") + '{"step": 10, "validation_loss": 4}\n')
    metrics = Metrics(path)
    metrics.refresh()
    assert list(metrics.names) == ["tokens_per_second", "gradient_norm"]
