"""Killed with -9 at different moments and started again, an experiment ends with the results of an undisturbed one."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxgpt.lease import is_locked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = """
import sys
from pathlib import Path
from jaxgpt.experiment.cli import main
root, runs, *arguments = sys.argv[1:]
arguments += ["--exp", "toy", "--scale", "small", "--runs-dir", runs, "--workers", "2"]
sys.exit(main(arguments, Path(root) / "experiments", Path(root) / "configs"))
"""
SETTINGS = ("--set", "train.steps=60", "train.checkpoint_every=10", "train.log_every=5", "train.validate_every=20")


def start(toy, runs):
    """A launcher on its way. It writes to a file, so that nobody has to read along."""
    with (toy.root / "output.txt").open("ab") as output:
        command = [sys.executable, "-c", SCRIPT, str(toy.root), str(runs), *SETTINGS]
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def finish(toy, runs):
    launcher = start(toy, runs)
    assert launcher.wait(timeout=240) == 0, (toy.root / "output.txt").read_text()
    return (runs / "toy" / "report" / "results.csv").read_bytes()


def wait_for(condition, launcher):
    until = time.monotonic() + 120
    while not condition():
        assert launcher.poll() is None, "ended before it could be killed"
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def workers(runs):
    """Process ids of the workers of this runs folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "jaxgpt.experiment.worker" in words and any(word.startswith(str(runs)) for word in words):
            found.append(int(path.parent.name))
    return found


def parent_of(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None  # it has ended


def kill(*pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def settle(launcher, runs):
    """A killed launcher leaves no worker behind: within seconds the last one is gone and has let go of its folder."""
    launcher.wait()
    until = time.monotonic() + 10
    while workers(runs) or any(is_locked(path) for path in (runs / "toy").iterdir() if path.is_dir()):
        assert time.monotonic() < until, "an orphan lives on"
        time.sleep(0.02)


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
