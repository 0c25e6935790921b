import json

import pytest

from jaxgpt.errors import UserError
from jaxgpt.experiment.store import RunFolder, read_json
from jaxgpt.lease import locked


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def folder(tmp_path, **files):
    for name, content in files.items():
        write(tmp_path / name.replace("__", "."), content)
    return RunFolder(tmp_path)


def test_json_that_is_missing_or_damaged(tmp_path):
    assert read_json(tmp_path / "none.json") == {}
    for text in ("{", "[1]"):
        write(tmp_path / "bad.json", text)
        with pytest.raises(UserError, match=r"bad\.json: .*remove it"):
            read_json(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("state", "evaluated", "finished"),
    [
        ("finished", ["a", "b"], True),
        ("trained", ["a", "b", "old"], True),
        ("finished", ["a"], False),
        ("running", ["a", "b"], False),
        (None, ["a", "b"], False),
    ],
)
def test_finished_is_trained_with_every_evaluation(tmp_path, state, evaluated, finished):
    if state:
        write(tmp_path / "status.json", {"state": state})
    write(tmp_path / "evaluation.json", {name: {} for name in evaluated})
    assert RunFolder(tmp_path).is_finished(["a", "b"]) is finished


@pytest.mark.parametrize(
    ("status", "asked", "finished"),
    [
        ({"state": "failed", "diverged": True}, {"may_diverge": True}, True),
        ({"state": "failed", "diverged": True}, {}, False),
        ({"state": "interrupted", "pruned": "s"}, {"study": "s"}, True),
        ({"state": "interrupted", "pruned": "s"}, {"study": "t"}, False),
        ({"state": "interrupted"}, {"study": ""}, False),
        ({"state": "trained"}, {}, True),
    ],
)
def test_a_run_that_ended_early_may_have_all_it_was_asked(tmp_path, status, asked, finished):
    run = folder(tmp_path, status__json=status, request__json={"evaluations": [{"hash": "a"}], **asked})
    write(tmp_path / "evaluation.json", {"a": {}})
    assert run.has_all_it_was_asked() is finished
    assert run.is_finished(["a"], **{"may_diverge": False, "study": "", **asked}) is finished


def test_running_without_a_process_is_interrupted(tmp_path):
    run = folder(tmp_path, status__json={"state": "running"})
    assert run.state() == "interrupted"
    with locked(tmp_path):
        assert run.state() == "running"
    assert RunFolder(tmp_path / "new").state() == "pending"


METRICS = [
    {"step": 1, "tokens": 10, "loss": 3.0},
    {"step": 2, "tokens": 20, "loss": 2.5, "tokens_per_second": 100},
    {"step": 2, "tokens": 20, "validation_loss": 2.7},
    {"step": 2, "tokens": 20, "loss": 2.4, "tokens_per_second": 110},
]


def test_curve_keeps_the_last_line_of_a_step_and_drops_a_torn_one(tmp_path):
    text = "\n".join(map(json.dumps, METRICS)) + '\n{"step": 3, "lo'
    assert folder(tmp_path, metrics__jsonl=text).curve() == [METRICS[0], METRICS[3], METRICS[2]]
    assert RunFolder(tmp_path / "new").curve() == []


def test_progress(tmp_path):
    text = "\n".join(map(json.dumps, METRICS))
    run = folder(tmp_path, metrics__jsonl=text, status__json={"state": "running", "step": 0, "steps": 8})
    now = run.progress()
    assert (now.state, now.step, now.steps, now.tokens, now.loss, now.tokens_per_second) == (
        "running",
        2,
        8,
        20,
        2.4,
        110,
    )
    assert RunFolder(tmp_path / "new").progress().state == "pending"
    write(tmp_path / "status.json", "{")
    assert "remove it" in (run.progress().message or "")


def test_status_changes_key_by_key(tmp_path):
    run = folder(tmp_path, status__json={"state": "trained", "step": 4, "steps": 4, "message": None})
    run.update_status(state="finished")
    assert run.status() == {"state": "finished", "step": 4, "steps": 4, "message": None}
    assert run.is_trained()
    assert run.environment() == {}


def test_a_pruned_run_is_done_for_the_study_that_pruned_it(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.pruned_by == ""
    folder.update_status(state="interrupted", step=6, steps=10, message="interrupted at step 6")
    folder.prune("rope-1234")
    assert folder.pruned_by == "rope-1234"
    assert folder.status()["message"] == "pruned at step 6 of 10"
    assert folder.state() == "interrupted", "for everybody else"
