"""Two real processes that train one run together, over `jax.distributed`."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.parallel import processes
from jaxgpt.parallel.processes import VARIABLES, Question, is_first, join, meet
from jaxgpt.train.__main__ import main
from jaxgpt.train.checkpoint import Checkpoints

STEPS = 20


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A tiny run on a text of its own."""
    folder = tmp_path_factory.mktemp("text")
    words = ["the", "state", "of", "union", "is", "strong"]
    for number in range(10):
        (folder / f"{number}.txt").write_text(" ".join(random.Random(number).choices(words, k=200)))
    return [
        *("model.num_layers=2", "model.num_heads=2", "model.width=32", "data.tokenizer.type=byte"),
        *("data.corpus.type=text", f"data.corpus.path={folder}", "data.sequence_length=16"),
        *("train.batch_size=8", "train.log_every=1", "train.validate_every=10", "train.validation_tokens=128"),
        *(f"train.steps={STEPS}", "train.checkpoint_every=4", "train.tensorboard=false"),
        "train.layer_statistics=true",
    ]


def start(place, settings, number, port, **more):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        **more,
        **dict(zip(VARIABLES, (f"127.0.0.1:{port}", "2", str(number)), strict=True)),
    }
    command = [sys.executable, Path(__file__).with_name("in_processes.py"), place, *settings]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def two(place, settings, victim=None, what=signal.SIGTERM):
    """Two processes that have begun; the victim, 0 or 1, sends itself a signal on the way."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    signals = [{"SIGNAL": str(int(what))} if number == victim else {} for number in range(2)]
    return [start(place, settings, number, port, **signals[number]) for number in range(2)]


def ends(processes):
    """(exit code, output, errors) of each."""
    spoken = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *said) for process, said in zip(processes, spoken, strict=True)]


def losses(place):
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def arrays(place):
    checkpoints = Checkpoints(place / "checkpoints", writes=False)
    try:
        return checkpoints.arrays()
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def alone(settings, tmp_path_factory):
    """The same run in one process."""
    place = tmp_path_factory.mktemp("alone") / "run"
    command = [sys.executable, "-m", "jaxgpt.train", "--run-dir", place, "--set", *settings]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    return place


def last_layers(place):
    return json.loads((place / "layers.jsonl").read_text().splitlines()[-1])


def assert_equal(place, alone):
    np.testing.assert_allclose(losses(place), losses(alone), atol=1e-5)
    for name, norm in last_layers(alone)["parameter_norm"].items():
        np.testing.assert_allclose(last_layers(place)["parameter_norm"][name], norm, rtol=1e-4, err_msg=name)
    expected, found = arrays(alone), arrays(place)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        # Adam divides a gradient by its own size, which magnifies what rounding did to those near zero.
        np.testing.assert_allclose(found[name], array, atol=1e-5, err_msg=name)
        assert np.sqrt(np.mean(np.square(found[name] - array))) <= 1e-6, name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mesh", ["{data: 2}", "{fsdp: 2}", "{context: 2}"])
def test_two_processes_equal_one_and_each_reads_its_own_rows(settings, alone, tmp_path, mesh):
    place = tmp_path / "run"
    first, second = ends(two(place, [*settings, f"train.mesh={mesh}"]))
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert_equal(place, alone)
    asked = [json.loads(output.splitlines()[-1]) for _, output, _ in (first, second)]
    if "context" in mesh:
        assert asked[0] == asked[1], "every process has a part of every row"
    else:
        steps = min(map(len, asked)) // 4  # some were read ahead
        assert steps >= STEPS
        for step in range(steps):
            mine, yours = (set(rows[4 * step : 4 * step + 4]) for rows in asked)
            assert len(mine) == len(yours) == 4
            assert not mine & yours
    assert "20 steps" in first[1]
    assert "steps" not in second[1] + second[2], "the first one reports"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_signal_to_one_stops_both_at_one_step(settings, alone, tmp_path):
    """And they resume, with the best validations of before still known."""
    place = tmp_path / "run"
    divided = [*settings, "train.mesh={data: 2}", "train.validate_every=3", "train.keep_best=2"]
    stopped = ends(two(place, divided, victim=1))
    for code, _, errors in stopped:
        assert code == 130, errors
        assert "interrupted at step" in errors
    first, second = (errors.splitlines()[-1] for _, _, errors in stopped)
    assert first == second, "at the same step"
    assert all(code == 0 for code, _, _ in ends(two(place, divided)))
    assert_equal(place, alone)
    entries = map(json.loads, (place / "metrics.jsonl").read_text().splitlines())
    found = {entry["step"]: entry["validation_loss"] for entry in entries if "validation_loss" in entry}
    checkpoints = Checkpoints(place / "checkpoints", writes=False)
    assert checkpoints.find("best") == min(found, key=lambda step: (found[step], step))
    checkpoints.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_is_killed_the_other_ends_and_the_run_goes_on(settings, alone, tmp_path, victim):
    place, divided = tmp_path / "run", [*settings, "train.mesh={data: 2}"]
    ended = ends(two(place, divided, victim, signal.SIGKILL))
    assert ended[victim][0] == -signal.SIGKILL
    code, _, errors = ended[1 - victim]
    assert code != 0
    if victim == 1:  # without the first, which is where all meet, the runtime itself ends the others
        assert code == 130, errors
        assert "another process of this run is gone" in errors.splitlines()[-1]
    assert all(code == 0 for code, _, _ in ends(two(place, divided)))
    assert_equal(place, alone)


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_alone_nobody_waits():
    assert is_first()
    meet("here")
    anyone = Question()
    assert [anyone(False), anyone(True), anyone(False)] == [False, True, False]


def test_others_that_are_not_there_are_named(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ConfigError, match=r"--processes: the others of this run are not found .*JAX_COORDINATOR_ADDRESS"
    ):
        join()
    assert is_first()


def test_processes_without_a_mesh_are_refused(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxgpt.train.devices.jax.process_count", lambda: 2)
    monkeypatch.setattr("jaxgpt.parallel.processes.join", lambda patience: None)
    assert main(["--processes", "--run-dir", str(tmp_path / "run"), "--set", *settings]) == 2
    assert "train.mesh: several processes need one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ("UNAVAILABLE: the coordination service lost task 1", True),
        ("DEADLINE_EXCEEDED: Barrier timed out", True),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.", False),
        ("INVALID_ARGUMENT: a shape", False),
        ("a fault of our own", False),
    ],
)
def test_which_errors_say_that_another_process_is_gone(monkeypatch, words, gone):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert processes.lost(RuntimeError(words)) is gone
