"""Killed with -9 fifty times, while it trains and while it saves, a run ends with the numbers of an undisturbed one."""

import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxgpt.train.checkpoint import Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
KILLS = 50


def start(overrides, directory):
    command = [sys.executable, "-m", "jaxgpt.train", "--run-dir", directory, "--set", *overrides]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(overrides, directory):
    run = start(overrides, directory)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    checkpoints = Checkpoints(directory / "checkpoints")
    arrays = checkpoints.arrays()
    checkpoints.close()
    return arrays


def wait_for_a_step(run, directory):
    """Until a process has gone on where the one before it was killed."""
    metrics = directory / "metrics.jsonl"
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    until = time.monotonic() + 120
    while not metrics.exists() or metrics.stat().st_mtime_ns == before or not metrics.stat().st_size:
        assert run.poll() is None, run.stdout.read()
        assert time.monotonic() < until, "does not train"
        time.sleep(0.005)


def test_fifty_kills_change_no_bit(overrides, tmp_path):
    settings = overrides("train.steps=1500", "train.checkpoint_every=3", "train.validate_every=1500")
    draw, while_saving = random.Random(0), 0
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        run = start(settings, killed)
        wait_for_a_step(run, killed)
        time.sleep(draw.uniform(0, 0.3))
        assert run.poll() is None, "the run ended before it could be killed"
        run.kill()
        run.communicate()
        while_saving += any((killed / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
    assert while_saving > KILLS // 10
    once, again = finish(settings, tmp_path / "undisturbed"), finish(settings, killed)
    assert once.keys() == again.keys()
    for name, array in once.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
