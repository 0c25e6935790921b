"""Killed with -9 fifty times, while it trains and while it saves, a run ends with the numbers of an undisturbed one."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxgpt.train.checkpoint import Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
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


def last_step(directory):
    """Of those that are written down."""
    metrics = directory / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def wait_for_a_step(run, directory, after):
    """Until a process has gone beyond where the one before it was killed."""
    until = time.monotonic() + 120
    while last_step(directory) <= after:
        assert run.poll() is None, run.stdout.read()
        assert time.monotonic() < until, "does not train"
        time.sleep(0.01)


def test_fifty_kills_change_no_bit(overrides, tmp_path):
    settings = overrides("train.steps=3000", "train.checkpoint_every=3", "train.validate_every=3000")
    draw, while_saving, step = random.Random(0), 0, 0
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        run = start(settings, killed)
        wait_for_a_step(run, killed, step)
        time.sleep(draw.uniform(0, 0.15))
        assert run.poll() is None, "the run ended before it could be killed"
        run.kill()
        run.communicate()
        step = last_step(killed)
        while_saving += any((killed / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
    assert while_saving > KILLS // 10
    once, again = finish(settings, tmp_path / "undisturbed"), finish(settings, killed)
    assert once.keys() == again.keys()
    for name, array in once.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
