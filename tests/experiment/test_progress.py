import dataclasses
import json

from rich.console import Console

from jaxgpt.experiment.progress import Display, duration, fraction
from jaxgpt.launch.task import Event, Outcome, Task


def status(run, state, step=0, **metrics):
    run.folder.path.mkdir(parents=True, exist_ok=True)
    (run.folder.path / "status.json").write_text(json.dumps({"state": state, "step": step, "steps": 4}))
    if metrics:
        (run.folder.path / "metrics.jsonl").write_text(json.dumps({"step": step, "tokens": 9, **metrics}) + "\n")


def task(run):
    return Task(run.name, ("true",), run.folder.log)


def test_durations():
    assert [duration(seconds) for seconds in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]


def test_fractions_follow_the_folder(toy):
    baseline, run = toy.plan().runs[:2]
    assert fraction(baseline) == (0.0, "counting")
    assert fraction(run) == (0.0, "starting")
    status(run, "running", 2, loss=3.25, tokens_per_second=1234)
    assert fraction(run) == (0.4, "step 2/4  loss 3.250  1,234 tokens/s")
    status(run, "trained", 4)
    assert fraction(run) == (0.8, "evaluating")
    (run.folder.path / "evaluation.json").write_text(json.dumps({one.hash: {} for one in run.evaluations}))
    status(run, "finished", 4)
    assert fraction(run) == (1.0, "done")


def follow(toy, console):
    runs = toy.plan().runs[1:3]
    with Display(runs, console, interval=0.0) as display:
        for run in runs:
            display.on_event(Event("started", task(run)))
        status(runs[0], "running", 2, loss=3.0, tokens_per_second=50)
        display.on_event(Event("tick"))
        display.on_event(Event("ended", task(runs[0]), Outcome(task(runs[0]), 0, 3.0)))
        display.on_event(Event("stopping"))
        display.on_event(Event("ended", task(runs[1]), Outcome(task(runs[1]), -15, 4.0)))
    return runs


def test_plain_lines_without_a_terminal(toy, capsys):
    first, second = follow(toy, Console(width=140))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{first.name}: started", f"{second.name}: started"]
    assert lines[2].startswith("0/2 runs, ")
    assert lines[2].endswith("50 tokens/s")
    assert lines[3].startswith(f"{first.name}: done in 3 s (1/2 runs, ")
    assert lines[4].startswith("stopping")
    assert lines[5] == f"{second.name}: did not finish (2/2 runs)"


def test_runs_may_come_while_it_works(toy, capsys):
    first, second = (dataclasses.replace(run, study="s") for run in toy.plan().runs[1:3])
    with Display([], Console(width=140), interval=0.0, total=5) as display:
        for run in (first, second):
            display.add(run)
            display.on_event(Event("started", task(run)))
        display.on_event(Event("ended", task(first), Outcome(task(first), 0, 3.0)))
        status(second, "interrupted", 2)
        second.folder.prune("s")
        display.on_event(Event("ended", task(second), Outcome(task(second), 130, 4.0, "stopped on request")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"{first.name}: done in 3 s (1/5 runs")
    assert lines[3].startswith(f"{second.name}: pruned (2/5 runs")


def test_bars_on_a_terminal(toy, capsys):
    first, _ = follow(toy, Console(width=140, force_terminal=True))
    out = capsys.readouterr().out
    assert "all runs" in out
    assert f"{first.name}" in out
    assert "1/2 runs" in out
