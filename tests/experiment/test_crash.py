"""Killed with -9 at different moments and started again, an experiment ends with the results of an undisturbed one."""

import signal
import time

import pytest

from tests.experiment.launching import kill, parent_of, settle, wait_for, workers
from tests.experiment.launching import start as launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = ("--set", "train.steps=60", "train.checkpoint_every=10", "train.log_every=5", "train.validate_every=20")


def start(toy, runs):
    return launch(toy.root, runs, "--workers", "2", *SETTINGS)


def finish(toy, runs):
    launcher = start(toy, runs)
    assert launcher.wait(timeout=240) == 0, (toy.root / "output.txt").read_text()
    return (runs / "toy" / "report" / "results.csv").read_bytes()


def training(runs, step):
    """Whether any run has logged this step."""
    return any(f'"step": {step},' in path.read_text() for path in runs.glob("toy/*/metrics.jsonl"))


def test_results_are_the_same_after_kills_at_different_moments(toy):
    calm, rough = toy.root / "calm", toy.root / "rough"
    expected = finish(toy, calm)

    launcher = start(toy, rough)  # a worker, in the middle of training
    wait_for(lambda: training(rough, 25), launcher)
    kill(*workers(rough)[:1])
    wait_for(lambda: len(list(rough.glob("toy/*/request.json"))) == 5, launcher)
    kill(launcher.pid)  # then the launcher
    settle(launcher, rough)

    launcher = start(toy, rough)  # both, while weights are evaluated or trained
    wait_for(lambda: training(rough, 60), launcher)
    kill(launcher.pid, *workers(rough))
    settle(launcher, rough)

    launcher = start(toy, rough)  # as soon as workers are there
    wait_for(lambda: bool(workers(rough)), launcher)
    kill(*workers(rough), launcher.pid)
    settle(launcher, rough)

    launcher = start(toy, rough)  # politely, when it has a worker: what the one before was starting may still be ending
    wait_for(lambda: launcher.pid in map(parent_of, workers(rough)), launcher)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=90) == 130
    assert workers(rough) == []

    assert finish(toy, rough) == expected
    before = {path: path.stat().st_mtime_ns for path in rough.glob("toy/*/evaluation.json")}
    started = time.monotonic()
    assert finish(toy, rough) == expected
    print(f"a finished experiment again: {time.monotonic() - started:.1f} s")
    assert before == {path: path.stat().st_mtime_ns for path in rough.glob("toy/*/evaluation.json")}
