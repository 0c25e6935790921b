"""The state of every run, as people see it."""

import dataclasses
import json
import time

import pytest
from rich.console import Console

from jaxgpt.experiment import status
from jaxgpt.experiment.index import Listed
from jaxgpt.experiment.store import Attempt, now
from jaxgpt.launch.executor.base import Job
from jaxgpt.lease import locked


def leave(run, evaluated=True, **state):
    run.folder.path.mkdir(parents=True, exist_ok=True)
    run.folder.update_status(**state)
    if evaluated:
        done = {one.hash: {"hash": one.hash, "measurements": []} for one in run.evaluations}
        (run.folder.path / "evaluation.json").write_text(json.dumps(done))


def shown(runs, jobs=None, **options):
    """Name -> cells of the line, as strings."""
    found = status.lines([Listed.of(run) for run in runs], jobs or {})
    return {one.name: one for one in found}


def test_what_the_folders_say(toy):
    plan = toy.plan()
    done, failed, waiting, running = plan.runs[1:5]
    leave(done, state="finished", step=4, steps=4)
    leave(failed, False, state="failed", step=3, steps=4, message="the loss is [nan]")
    failed.folder.quarantine("the loss is [nan]")
    leave(running, False, state="running", step=1, steps=4)
    line = {"step": 2, "loss": 3.25, "tokens": 64, "tokens_per_second": 32.0}
    (running.folder.path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    running.folder.begin_attempt(Attempt("n1", 7, now(), 0, "41"))
    running.folder.begin_attempt(Attempt("n2", 8, now(), 1, "42"))
    with locked(running.folder.path):
        found = shown(plan.runs)
    assert (found[done.name].state, found[done.name].evaluations) == ("finished", "2/2")
    assert (found[failed.name].state, found[failed.name].message) == ("failed", "the loss is [nan]")
    assert (found[waiting.name].state, found[waiting.name].step) == ("pending", "")
    one = found[running.name]
    assert (one.state, one.step, one.loss, one.rate, one.left) == ("running", "2/4", "3.2500", "32", "2 s")
    assert one.attempts == "2"
    assert one.node
    assert shown(plan.runs)[running.name].state == "interrupted"
    assert shown(plan.runs)[running.name].node == "n2", "where it was last"


def test_what_ended_early_says_so_though_it_is_finished(toy):
    pruned, diverged = (dataclasses.replace(run, study="s", may_diverge=True) for run in toy.plan().runs[1:3])
    leave(pruned, False, state="interrupted", step=6, steps=10)
    pruned.folder.prune("s")
    leave(diverged, False, state="failed", step=3, steps=4, message="the loss is nan", diverged=True)
    found = shown([pruned, diverged])
    assert (found[pruned.name].state, found[pruned.name].message) == ("finished", "pruned at step 6 of 10")
    assert (found[diverged.name].state, found[diverged.name].message) == ("finished", "the loss is nan")


def test_a_file_that_cannot_be_read_is_told_in_its_line(toy):
    run = toy.plan().runs[1]
    leave(run, state="finished", step=4, steps=4)
    (run.folder.path / "evaluation.json").write_text('{"a": ')
    line = shown([run])[run.name]
    assert (line.state, line.evaluations) == ("failed", "0/2")
    assert f"{run.folder.path / 'evaluation.json'}: " in line.message


def test_a_trained_run_that_is_asked_for_more(toy):
    leave(toy.plan().runs[1], state="finished", step=4, steps=4)
    longer = toy.plan(["evaluate.protocols.fixed_target.multiples=[0.25,1,2]"])
    found = shown(longer.runs)[longer.runs[1].name]
    assert (found.state, found.evaluations) == ("trained", "0/2")


def test_the_scheduler_is_a_hint(toy):
    plan = toy.plan()
    leave(plan.runs[1], state="finished", step=4, steps=4)
    jobs = {run.name: Job("12_3", "PENDING", reason="Priority") for run in plan.runs[1:3]}
    found = shown(plan.runs, jobs)
    assert found[plan.runs[1].name].state == "finished"
    assert (found[plan.runs[2].name].state, found[plan.runs[2].name].message) == ("queued", "job 12_3: priority")


def test_what_is_printed(toy, capsys):
    plan = toy.plan()
    leave(plan.runs[1], state="finished", step=4, steps=4)
    leave(plan.runs[2], False, state="failed", message="the loss is [nan]")
    plan.runs[2].folder.quarantine("the loss is [nan]")
    console = Console(width=200)
    status.show([Listed.of(run) for run in plan.runs], dict, console)
    out = capsys.readouterr().out
    assert "the loss is [nan]" in out
    assert "5 runs: 1 failed, 3 pending, 1 finished\n" in out
    found = status.lines([Listed.of(run) for run in plan.runs], {})
    console.print(status.table(found, room=2))
    out = capsys.readouterr().out
    assert plan.runs[2].name in out, "what failed comes first"
    assert plan.runs[1].name not in out
    assert "3 more not shown" in out


def test_it_is_followed_to_its_end(toy, monkeypatch, capsys):
    plan = toy.plan()
    runs = [Listed.of(run) for run in plan.runs]
    asked = []

    def jobs():
        asked.append(1)
        return {run.name: Job("1", "RUNNING") for run in runs} if len(asked) < 3 else {}

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    status.show(runs, jobs, Console(width=200, force_terminal=True), watch=True)
    assert len(asked) == 3
    assert "5 pending" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 3'])
def test_half_a_status_is_shown_as_a_failure_not_raised(toy, content):
    run = toy.plan().runs[1]
    run.folder.path.mkdir(parents=True)
    (run.folder.path / "status.json").write_text(content)
    found = shown([run])[run.name]
    assert found.state == "failed"
    assert "cannot be read" in found.message or "must be a JSON object" in found.message
