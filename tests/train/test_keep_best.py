"""The checkpoints with the lowest validation losses stay, beside the newest; they are found, or it is said why not."""

import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.errors import CheckpointError, ConfigError, Interrupted
from jaxgpt.experiment import evaluate_run
from jaxgpt.generate.__main__ import main as generate
from jaxgpt.nn.params import flatten
from jaxgpt.train.checkpoint import Checkpoints
from jaxgpt.train.loop import _Loop, train
from jaxgpt.train.manifest import DamagedCheckpoint
from jaxgpt.train.start import load_model

VALIDATE = _Loop.validate
EVERY = ("train.validate_every=1", "train.checkpoint_every=100", "train.steps=12", "train.keep_checkpoints=1")
LOSSES = dict(zip(range(1, 13), [9.0, 5.0, 6.0, 7.0, 4.0, 8.0, 4.5, 4.4, 4.3, 4.2, 4.1, 4.6], strict=True))


def steps(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def lose(monkeypatch, losses):
    """Let the validations of runs find these losses, by step; what they really found is in the mapping returned."""
    really = {}

    def validated(running, model):
        really[running.done] = VALIDATE(running, model)
        return losses[running.done]

    monkeypatch.setattr(_Loop, "validate", validated)
    return really


def validation_of(config, directory, model):
    """What a run of this configuration would find."""
    running = _Loop(config, directory, config.data.prepare())
    try:
        return VALIDATE(running, model)
    finally:
        running.close()


def arrays(directory, *prefixes, step=None):
    checkpoints = Checkpoints(directory / "checkpoints", writes=False)
    try:
        return checkpoints.arrays(*prefixes, step=step)
    finally:
        checkpoints.close()


# ------------------------------------------------------------------------------------------------------- which stay


@pytest.fixture
def checkpoints(tmp_path):
    """`checkpoints(keep, best)` of one folder; closed at the end."""
    made = []

    def make(keep, best, **more):
        made.append(Checkpoints(tmp_path / "c", keep, best, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def save(checkpoints, losses):
    for step, loss in losses.items():
        checkpoints.save({"x": jnp.float32(step)}, step, {"note": step}, loss)
    checkpoints.wait()


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (1, 0, [6]),
        (3, 0, [4, 5, 6]),
        (1, 1, [2, 6]),
        (1, 2, [2, 5, 6]),
        (2, 2, [2, 5, 6]),
        (1, 3, [2, 4, 5, 6]),
        (2, 9, [1, 2, 4, 5, 6]),
    ],
)
def test_the_newest_and_the_best_stay(checkpoints, tmp_path, keep, best, left):
    save(checkpoints(keep, best), {1: 3.0, 2: 1.0, 3: None, 4: 2.5, 5: 2.0, 6: float("nan")})
    assert steps(tmp_path / "c") == left


def test_of_equal_losses_the_earlier_stays(checkpoints, tmp_path):
    made = checkpoints(1, 1)
    save(made, {1: 2.0, 2: 2.0, 3: 2.0})
    assert steps(tmp_path / "c") == [1, 3]
    assert made.find("best") == 1
    assert [made.is_among_best(loss) for loss in (1.9, 2.0, 2.1, float("nan"), float("-inf"))] == [True, *4 * [False]]


def test_losses_are_known_to_the_next_writer_and_to_readers(checkpoints, tmp_path):
    save(checkpoints(2, 2), {1: 2.0, 2: 3.0, 3: 4.0})
    assert checkpoints(2, 0, writes=False).find("best") == 1
    again = checkpoints(1, 2)
    assert [again.is_among_best(loss) for loss in (2.5, 3.0)] == [True, False]
    save(again, {4: 2.5, 5: 9.0})
    assert steps(tmp_path / "c") == [1, 4, 5]
    assert again.restore({"x": jnp.float32(0)}, 4)[1] == {"note": 4, "validation_loss": 2.5}


def test_where_no_best_are_kept_no_loss_is(checkpoints):
    made = checkpoints(2, 0)
    save(made, {1: 2.0})
    assert not made.is_among_best(0.0)
    with pytest.raises(CheckpointError, match=r"c: holds no checkpoint that was kept .*; there are 1; train with"):
        made.find("best")


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("7", CheckpointError, r"c: holds no checkpoint of step 7; there are 3, 4$"),
        (7, CheckpointError, r"c: holds no checkpoint of step 7; there are 3, 4$"),
        ("newest", ConfigError, r"checkpoint 'newest': expected best, last or a step; there are 3, 4$"),
        (-1, ConfigError, r"checkpoint -1: expected best, last or a step; there are 3, 4$"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(checkpoints, which, error, message):
    made = checkpoints(2, 1)
    save(made, {3: 1.0, 4: 2.0})
    assert (made.find("best"), made.find("last"), made.find("4"), made.find(3)) == (3, 4, 4, 3)
    with pytest.raises(error, match=message):
        made.find(which)


def test_no_checkpoint_at_all(checkpoints):
    with pytest.raises(CheckpointError, match="c: holds no checkpoint; train first"):
        checkpoints(1, 1).find("best")


# ------------------------------------------------------------------------------------------------------------- damage


def flip(path):
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def test_a_best_whose_loss_is_damaged_hides_behind_no_other(checkpoints, tmp_path, caplog):
    """A reader refuses to name a best; a writer that resumes moves the damaged one aside and says so."""
    like = {"x": jax.ShapeDtypeStruct((), jnp.float32)}
    save(checkpoints(1, 2), {1: 1.0, 2: 2.0, 3: 3.0})
    flip(tmp_path / "c" / "1" / "extra" / "metadata")
    with pytest.raises(DamagedCheckpoint, match=r"/1/extra/metadata: is damaged .*; there are also 2, 3$"):
        checkpoints(1, 0, writes=False).find("best")
    writer = checkpoints(1, 2)
    writer.restore_intact(like)
    assert [record.getMessage() for record in caplog.records if record.name == "jaxgpt.train.checkpoint"] == [
        f"{tmp_path}/c/1/extra/metadata: is damaged (its checksum differs); it no longer counts among the best"
    ]
    assert writer.find("best") == 2
    assert (tmp_path / "c" / "damaged-1").exists()
    save(writer, {4: 2.5})
    assert steps(tmp_path / "c") == [2, 4]


def test_a_best_whose_arrays_are_damaged_is_an_error_that_names_the_others(checkpoints, tmp_path):
    save(checkpoints(1, 1), {1: 1.0, 2: 2.0})
    damaged = max((tmp_path / "c" / "1" / "state").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    flip(damaged)
    reader = checkpoints(1, 0, writes=False)
    with pytest.raises(DamagedCheckpoint, match=rf"^{damaged}: is damaged .*; there are also 2$"):
        reader.arrays(step=reader.find("best"))
    np.testing.assert_array_equal(reader.arrays(step=reader.find("last"))["x"], 2)


# --------------------------------------------------------------------------------------------------------------- runs


def test_the_best_validations_so_far_are_on_disk(tiny, tmp_path, monkeypatch, read_metrics):
    """Saved where no checkpoint was due, with the weights that were validated; the run's numbers are what they were."""
    really = lose(monkeypatch, LOSSES)
    config, plain = tiny(*EVERY, "train.keep_best=2"), tiny(*EVERY)
    result, usual = train(config, tmp_path / "best"), train(plain, tmp_path / "plain")
    assert config.hash == plain.hash
    assert read_metrics(tmp_path / "best") == read_metrics(tmp_path / "plain")
    for one, other in zip(jax.tree.leaves(result.model), jax.tree.leaves(usual.model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert steps(tmp_path / "best" / "checkpoints") == [5, 11, 12]
    assert steps(tmp_path / "plain" / "checkpoints") == [12]
    for which, step in (("best", 5), ("11", 11), ("last", 12)):
        model, _ = load_model(tmp_path / "best", checkpoint=which)
        assert validation_of(config, tmp_path / which, model) == really[step]


@pytest.mark.parametrize("way", [["train.ema=0.9"], ["train.optimizer.type=schedule_free", "train.schedule=constant"]])
def test_the_best_of_an_average_is_the_average(tiny, tmp_path, monkeypatch, way):
    really = lose(monkeypatch, LOSSES)
    config = tiny(*EVERY, *way, "train.keep_best=1")
    train(config, tmp_path / "run")
    model, _ = load_model(tmp_path / "run", checkpoint="best")
    assert validation_of(config, tmp_path / "other", model) == really[5]
    average = arrays(tmp_path / "run", "average", step=5)
    for name, leaf in flatten(model).items():
        np.testing.assert_array_equal(leaf, average[name])


@pytest.mark.parametrize("at", [5, 8])
def test_after_an_interruption_the_best_are_those_of_an_undisturbed_run(
    tiny, tmp_path, monkeypatch, interrupt_after, read_metrics, at
):
    lose(monkeypatch, LOSSES)
    config = tiny(*EVERY, "train.keep_best=2")
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, at)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "parts")
    train(config, tmp_path / "parts")
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")
    assert steps(tmp_path / "parts" / "checkpoints") == steps(tmp_path / "whole" / "checkpoints") == [5, 11, 12]
    for step in (5, 11, 12):
        again = arrays(tmp_path / "parts", step=step)
        for name, array in arrays(tmp_path / "whole", step=step).items():
            np.testing.assert_array_equal(again[name], array, err_msg=f"{name} of step {step}")


def test_a_damaged_newest_costs_no_best(tiny, tmp_path, monkeypatch):
    lose(monkeypatch, LOSSES)
    config = tiny(*EVERY, "train.keep_best=2")
    train(config, tmp_path / "run")
    flip(next(path for path in (tmp_path / "run" / "checkpoints" / "12" / "state").rglob("*") if path.is_file()))
    train(config, tmp_path / "run")
    assert steps(tmp_path / "run" / "checkpoints") == [5, 11, 12]
    assert (tmp_path / "run" / "checkpoints" / "damaged-12").exists()


@pytest.mark.slow
def test_killed_whenever_it_saves_the_best_written_down_is_on_disk(overrides, tmp_path):
    """A process of its own, ended with -9 again and again; its own losses, of which many are the best so far."""
    settings = overrides("train.steps=60", "train.validate_every=1", "train.checkpoint_every=100", "train.keep_best=1")
    command = [sys.executable, "-m", "jaxgpt.train", "--run-dir", str(tmp_path / "run"), "--set", *settings]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    place = tmp_path / "run" / "checkpoints"
    done = 0
    for _ in range(3):
        run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        until = time.monotonic() + 120
        while run.poll() is None and max(steps(place) if place.exists() else [], default=0) <= done:
            assert time.monotonic() < until, "saves nothing"
            time.sleep(0.005)
        run.kill()
        run.communicate()
        done = max(steps(place))
        found = losses_of(tmp_path / "run")
        checkpoints = Checkpoints(place, writes=False)
        best = checkpoints.find("best")
        checkpoints.close()
        # The last loss written down may be of a checkpoint that was not whole yet.
        assert found[best] == min(loss for step, loss in found.items() if step <= done)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    found = losses_of(tmp_path / "run")
    checkpoints = Checkpoints(place, writes=False)
    assert checkpoints.find("last") == 60
    assert checkpoints.find("best") == min(found, key=lambda step: (found[step], step))
    checkpoints.close()


def losses_of(directory):
    """By step, from the whole lines of a run's metrics."""
    lines = (directory / "metrics.jsonl").read_text().splitlines(keepends=True)
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return {entry["step"]: entry["validation_loss"] for entry in entries if "validation_loss" in entry}


# ------------------------------------------------------------------------------------------------------- command lines


def test_the_command_lines_take_one(sentence_run, tmp_path, capsys):
    for which, code in (("last", 0), ("120", 0), ("best", 1), ("7", 1), ("newest", 2)):
        assert generate([str(sentence_run), "--checkpoint", which, "--max-new-tokens", "3"]) == code
    errors = capsys.readouterr().err
    assert "checkpoints: holds no checkpoint that was kept for its validation loss; there are 120; train with" in errors
    assert "checkpoints: holds no checkpoint of step 7; there are 120\n" in errors
    assert evaluate_run.main(["--run", str(sentence_run), "--checkpoint", "newest"]) == 2
    assert "checkpoint 'newest': expected best, last or a step; there are 120\n" in capsys.readouterr().err


def test_a_checkpoint_of_transformers_is_one_model(llama_checkpoint, capsys):
    assert generate([str(llama_checkpoint), "--checkpoint", "best"]) == 1
    assert "is a checkpoint of transformers, which holds one model; leave --checkpoint out" in capsys.readouterr().err


def test_a_negative_number_is_refused(tiny):
    with pytest.raises(ConfigError, match="keep_best must be at least 0, got -1"):
        tiny("train.keep_best=-1")
