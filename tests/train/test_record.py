import io
import json

import numpy as np
import pytest

from jaxgpt.errors import UserError
from jaxgpt.train import record
from jaxgpt.train.record import Recorder, TrainingProgress, write_json, write_status
from jaxgpt.train.tracker.base import Tracker
from jaxgpt.train.tracker.tensorboard import TensorBoardConfig


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def open_recorder(directory, start=0, **more):
    return Recorder(directory, steps=9, start=start, **more)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": "ü"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": "ü"}
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": "ü"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"file/a\.json: cannot be written \(.+\)"):
        write_json(tmp_path / "file" / "a.json", {})
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written"):
        open_recorder(tmp_path / "file")


def test_metrics_are_lines_on_disk_at_once(tmp_path):
    recorder = open_recorder(tmp_path)
    recorder.metrics(step=1, loss=2.5)
    assert lines(tmp_path) == [{"step": 1, "loss": 2.5}]
    recorder.metrics(step=2, loss=2.25)
    recorder.close()
    assert lines(tmp_path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}]


@pytest.mark.parametrize(
    "tail",
    ["", '{"step": 4, "lo', '{"step": 4, "loss": 1}', "\n", "\0\udcff\n", "null\n", "{}\n"],
    ids=["whole", "cut", "no end", "blank", "no text", "nothing", "no step"],
)
def test_a_resume_drops_what_lies_past_it(tmp_path, tail):
    kept = [{"step": step, "loss": 1.0} for step in (1, 2, 2, 3)]
    later = [{"step": 5, "loss": 1.0}, {"step": 6, "loss": 1.0}]
    text = "".join(json.dumps(entry) + "\n" for entry in kept + later)
    (tmp_path / "metrics.jsonl").write_bytes((text + tail).encode(errors="surrogateescape"))
    recorder = open_recorder(tmp_path, start=4)
    recorder.metrics(step=5, loss=9.0)
    recorder.close()
    assert lines(tmp_path) == [*kept, {"step": 5, "loss": 9.0}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_layers_have_lines_of_their_own_that_go_on_likewise(tmp_path):
    norms = {"update_norm": {"blocks/a": np.float32([1.5, 2.0]), "embedding": np.float32(0.5)}}
    recorder = open_recorder(tmp_path, layers=True)
    for step in (1, 2, 3):
        recorder.layers(step, norms)
    recorder.close()
    recorder = open_recorder(tmp_path, start=2, layers=True)
    recorder.layers(3, {})
    recorder.close()
    written = [json.loads(line) for line in (tmp_path / "layers.jsonl").read_text().splitlines()]
    line = {"update_norm": {"blocks/a": [1.5, 2.0], "embedding": 0.5}}
    assert written == [{"step": 1, **line}, {"step": 2, **line}, {"step": 3}]
    assert lines(tmp_path) == []


def test_trackers_have_every_number_and_may_fail(tmp_path, monkeypatch, caplog):
    seen = []

    class Fails(Tracker):
        def add(self, step, numbers):
            seen.append((step, numbers))
            if step == 2:
                raise ConnectionError("no network\nat all")

    def make(self, run):
        seen.append((run.first_step, run.settings))
        return Fails()

    monkeypatch.setattr(TensorBoardConfig, "make", make)
    recorder = open_recorder(tmp_path, trackers=[TensorBoardConfig()], settings={"seed": 3})
    for step in (1, 2, 3):
        recorder.metrics(step=step, loss=2.5)
    recorder.close()
    assert seen == [(1, {"seed": 3}), (1, {"loss": 2.5}), (2, {"loss": 2.5})]
    assert len(lines(tmp_path)) == 3
    assert len(caplog.records) == 1


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "is_first", lambda: False)
    recorder = open_recorder(tmp_path, trackers=[TensorBoardConfig()], layers=True)
    recorder.metrics(step=1, loss=2.5)
    recorder.layers(1, {})
    recorder.status("running", 1)
    recorder.close()
    assert not list(tmp_path.iterdir())


def test_status_is_replaced(tmp_path):
    recorder = open_recorder(tmp_path)
    recorder.status("running", 3)
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "state": "running",
        "step": 3,
        "steps": 9,
        "message": None,
    }
    write_status(tmp_path, "failed", 4, 9, "why")
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "state": "failed",
        "step": 4,
        "steps": 9,
        "message": "why",
    }
    recorder.close()


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_lines_in_a_file_and_a_bar_on_a_terminal(monkeypatch, terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(record.sys, "stderr", stream)
    with TrainingProgress(steps=10, start=2, name="run") as progress:
        progress.advance(4)
        progress.report(4, 2.5, 12345.6, 0.412)
    text = stream.getvalue()
    if terminal:
        assert "4/10" in text
        assert "loss 2.500" in text
    else:
        assert text == "run: step 4/10  loss 2.500  12,346 tokens/s  41% of peak\n"
