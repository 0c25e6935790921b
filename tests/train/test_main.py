"""`python -m jaxgpt.train`: exit codes, one line on standard error, Ctrl-C and SIGTERM."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jaxgpt.config import read_yaml, write_yaml
from jaxgpt.train import loop
from jaxgpt.train.__main__ import main
from jaxgpt.train.record import Recorder
from jaxgpt.train.run import load_config, load_raw


@pytest.fixture
def config_file(tmp_path, overrides):
    """The tiny run as a file."""

    def write(*more):
        path = tmp_path / "tiny.yaml"
        path.write_text(write_yaml(load_raw([], overrides(*more))), encoding="utf-8")
        return path

    return write


def start(*arguments):
    """Without NPROC in the environment, as a user would."""
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    command = [sys.executable, "-m", "jaxgpt.train", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_misspelt_key_is_one_line_and_exit_code_2():
    process = start("--set", "train.step=5")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("error: train.step: no such key; did you mean 'steps'? (there are: accumulation, ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config", "nowhere.yaml"], 2, "error: nowhere.yaml: cannot be read (No such file or directory)\n"),
        (["--set", "train.steps"], 2, "error: --set 'train.steps': expected PATH=VALUE"),
        (
            ["--set", "data.corpus.type=text", "data.corpus.path=/nowhere"],
            1,
            "error: data.corpus.path: there is no file",
        ),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_ctrl_c_before_training_began_is_no_traceback(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", stop)
    assert main([]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_says_where_it_is_and_how_it_ended(capsys, tmp_path, monkeypatch, config_file):
    monkeypatch.chdir(tmp_path)
    path = config_file("train.steps=2")
    assert main(["--config", str(path), "--set", "seed=3", "--set", "train.log_every=2"]) == 0
    printed = capsys.readouterr()
    place = f"runs/single/tiny-{load_config(path, ['seed=3']).hash}"
    assert printed.out.startswith(f"{place}: 2 steps, validation loss ")
    assert printed.out.endswith(" nats per token\n")
    assert "step 2/2  loss " in printed.err
    assert read_yaml(tmp_path / place / "config.yaml")["seed"] == 3
    assert main(["--config", str(path), "--set", "seed=3"]) == 0
    assert capsys.readouterr().out == f"{place}: 2 steps\n", "the second time nothing is trained"


def test_sigterm_saves_leaves_with_130_and_the_next_run_goes_on(
    tmp_path, config_file, read_metrics, read_status, monkeypatch
):
    place = tmp_path / "run"
    path = config_file("train.steps=50000", "train.checkpoint_every=50000", "train.validate_every=50000")
    process = start("--config", path, "--run-dir", place)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (place / "metrics.jsonl").exists() and (place / "metrics.jsonl").read_text().count("\n") >= 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    status = read_status(place)
    assert status["state"] == "interrupted"
    stopped = status["step"]
    assert err.endswith(f"error: {place}: interrupted at step {stopped}, saved; run again to go on\n")
    assert [entry["step"] for entry in read_metrics(place)] == list(range(1, stopped + 1))

    write_line = Recorder.metrics

    def stop_again(recorder, **entry):
        write_line(recorder, **entry)
        if entry["step"] == stopped + 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Recorder, "metrics", stop_again)
    with pytest.raises(loop.Interrupted):
        loop.train(load_config(path), place)
    assert [entry["step"] for entry in read_metrics(place)] == list(range(1, read_status(place)["step"] + 1))
    assert read_status(place)["step"] > stopped
