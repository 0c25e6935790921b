"""Experiments with real training on a real Slurm: the same results as here, whatever happens to jobs."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.experiment.conftest import toy  # noqa: F401
from tests.experiment.launching import call, start, workers

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

EXECUTOR = "{{type: slurm, partition: main, minutes: 10, poll_seconds: 0.5, array_parallelism: {cap}, {more}}}\n"
LONG = ("--seeds", "1", "--where", "variant=alibi")
"""One run that is trained, of some seconds, and the baseline."""
SETTINGS = ("--set", "train.steps=6000", "train.checkpoint_every=1000", "train.log_every=100")


@pytest.fixture
def executor(toy, lab):  # noqa: F811
    """`executor(cap, **fields)`: options of a command line for it. Its jobs end with the test."""

    def make(cap=3, **fields):
        path = toy.root / "executor.yaml"
        path.write_text(EXECUTOR.format(cap=cap, more=", ".join(f"{name}: {value}" for name, value in fields.items())))
        return "--executor", str(path)

    yield make
    lab.ask("scancel", "--user=root", "--quiet")
    wait_until(lambda: not lab.ask("squeue", "--noheader").strip(), 60)


def wait_until(condition, seconds=90.0, launcher=None):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen in time"
        assert launcher is None or launcher.poll() is None, "ended too early"
        time.sleep(0.1)


def lines(runs):
    """The lines of the one training curve."""
    text = "".join(path.read_text() for path in Path(runs).glob("toy/alibi-*/metrics.jsonl"))
    return [json.loads(line) for line in text.splitlines()]


def attempts(runs):
    """Run -> its attempts, as (first, last) of the entries of attempts.jsonl."""
    found = {}
    for path in Path(runs).glob("toy/*/attempts.jsonl"):
        found[path.parent.name] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def results(runs, name="report"):
    return (Path(runs) / "toy" / name / "results.csv").read_text()


def output(toy):  # noqa: F811
    return (toy.root / "output.txt").read_text()


@pytest.fixture
def undisturbed(toy):  # noqa: F811
    """The results of the long run on this machine."""
    assert call(toy.root, toy.root / "calm", *LONG, *SETTINGS)[0] == 0
    return results(toy.root / "calm", "report-variant=alibi")


def test_twenty_four_runs_cancelled_and_continued_equal_those_of_this_machine(toy, executor, lab):  # noqa: F811
    here, there, seeds = toy.root / "here", toy.root / "there", ("--seeds", "12")
    assert call(toy.root, here, *seeds)[0] == 0
    launcher = start(toy.root, there, *seeds, *executor(cap=3))
    most = 0

    def finished():
        nonlocal most
        states = lab.ask("squeue", "--noheader", "--array", "--format=%T").split()
        most = max(most, states.count("RUNNING"))
        return sum(entries[-1].get("state") == "finished" for entries in attempts(there).values()) >= 5

    wait_until(finished, 240, launcher)
    code, said = call(toy.root, there, "cancel")
    assert code == 0, said
    assert launcher.wait(timeout=120) == 130, output(toy)
    assert "were cancelled" in output(toy)
    stopped = call(toy.root, there, "status", "--once")[1]
    assert "25 runs: " in stopped
    assert "25 finished" not in stopped
    code, said = call(toy.root, there, *seeds, *executor(cap=3), timeout=400)
    assert code == 0, said
    assert 1 <= most <= 3, "at a time"
    done = attempts(there)
    assert len(done) == 25
    assert all(sum(entry.get("state") == "finished" for entry in entries) == 1 for entries in done.values())
    assert results(there) == results(here)


@pytest.mark.parametrize("how", ["usr2", "urgent"])
def test_a_preempted_run_loses_no_step(toy, executor, lab, undisturbed, how):  # noqa: F811
    runs = toy.root / how
    launcher = start(toy.root, runs, *LONG, *SETTINGS, *executor(cap=2, signal_seconds=60))
    wait_until(lambda: lines(runs) and lines(runs)[-1]["step"] >= 1500, 120, launcher)
    if how == "usr2":
        job = attempts(runs)[next(iter(Path(runs).glob("toy/alibi-*"))).name][0]["job"]
        lab.ask("scancel", "--signal=USR2", f"{job}.0")
    else:
        command = [
            "sbatch",
            "-p",
            "urgent",
            "-N2",
            "--ntasks=4",
            "-t",
            "1",
            "-o",
            "/dev/null",
            "--wrap",
            "srun sleep 3",
        ]
        subprocess.run(command, check=True, capture_output=True)
    assert launcher.wait(timeout=300) == 0, output(toy)
    (entries,) = [one for name, one in attempts(runs).items() if name.startswith("alibi")]
    begun = [entry for entry in entries if "started" in entry]
    assert len(begun) == 2, entries
    assert entries[1]["state"] == "interrupted", "it saved"
    steps = [line["step"] for line in lines(runs) if "loss" in line]
    assert steps == sorted(set(steps)), "no step was trained again"
    assert results(runs, "report-variant=alibi") == undisturbed


def test_a_killed_run_is_tried_again_from_its_checkpoint(toy, executor, lab, undisturbed):  # noqa: F811
    runs = toy.root / "killed"
    launcher = start(toy.root, runs, *LONG, *SETTINGS, *executor(retries=1))
    wait_until(lambda: lines(runs) and lines(runs)[-1]["step"] >= 1500, 120, launcher)
    for pid in workers(runs):
        os.kill(pid, signal.SIGKILL)
    assert launcher.wait(timeout=300) == 0, output(toy)
    assert "killed by SIGKILL" in output(toy)
    assert "is tried again" in output(toy)
    (entries,) = [one for name, one in attempts(runs).items() if name.startswith("alibi")]
    begun = [entry for entry in entries if "started" in entry]
    assert [entry["step"] >= 1000 for entry in begun] == [False, True], "the second went on from a checkpoint"
    assert results(runs, "report-variant=alibi") == undisturbed


def test_two_processes_on_two_nodes_equal_one(toy, executor, lab):  # noqa: F811
    runs, short = toy.root / "two", ("--set", "train.steps=300", "train.checkpoint_every=100")
    assert call(toy.root, toy.root / "alone", *LONG, *short)[0] == 0
    together = (*short, "train.mesh={data: 2}")
    code, said = call(toy.root, runs, *LONG, *together, *executor(nodes=2), timeout=400)
    assert code == 0, said
    (entries,) = [one for name, one in attempts(runs).items() if name.startswith("alibi")]
    assert [entry["state"] for entry in entries if "state" in entry] == ["trained", "finished"]
    one, two = (
        [float(row["value"]) for row in csv.DictReader(text.splitlines())]
        for text in (results(place, "report-variant=alibi") for place in (toy.root / "alone", runs))
    )
    assert two == pytest.approx(one, abs=1e-6)
