"""Runs of a few steps: resumed bit for bit, stopped in order, refused where the folder holds something else."""

import dataclasses
import json
import os
import re
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode, encode, write_yaml
from jaxgpt.data.sources.text import TextDataset
from jaxgpt.data.tokenizers.base import TokenizerConfig, load_tokenizer
from jaxgpt.errors import CheckpointError, ConfigError, DataError, Interrupted, TrainingError, UserError
from jaxgpt.nn.position.rope_scaling import LinearConfig
from jaxgpt.train import functions, loop
from jaxgpt.train.checkpoint import Checkpoints
from jaxgpt.train.loop import interruptible, train
from jaxgpt.train.record import Recorder
from jaxgpt.train.start import has_last_step, load_model


def newest(directory):
    """Step and arrays of a run's last checkpoint, by name."""
    checkpoints = Checkpoints(directory / "checkpoints")
    try:
        return checkpoints.latest(), checkpoints.arrays()
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory, cache_home, module_patch):
    """(configuration, folder, result) of a run that ended."""
    module_patch.setenv("JAXGPT_CACHE", str(cache_home))
    directory = tmp_path_factory.mktemp("finished") / "run"
    config = tiny()
    return config, directory, train(config, directory)


# ----------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_leaves_what_it_promises(finished, read_metrics, read_status):
    config, directory, result = finished
    names = {path.name for path in directory.iterdir()}
    assert names == {"config.yaml", "environment.json", "metrics.jsonl", "status.json", "checkpoints", "tokenizer"}
    assert read_status(directory) == {"state": "trained", "step": 9, "steps": 9, "message": None}
    entries = read_metrics(directory)
    losses = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in losses] == list(range(1, 10))
    assert all(entry["tokens"] == entry["step"] * 64 for entry in entries)
    assert [entry["step"] for entry in entries if "validation_loss" in entry] == [5, 9]
    schedule = config.train.schedule.make(config.train.learning_rate, 9)
    np.testing.assert_allclose([e["learning_rate"] for e in losses], [float(schedule(step)) for step in range(9)])
    assert losses[0]["loss"] == pytest.approx(np.log(257), rel=0.02), "before it has learned, all bytes are alike"
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert (result.step, result.loss) == (9, losses[-1]["loss"])
    assert result.validation_loss == entries[-1]["validation_loss"] < losses[0]["loss"]
    step, arrays = newest(directory)
    assert step == int(arrays["step"]) == 9


def test_a_finished_run_trains_nothing_more(finished, read_status):
    config, directory, result = finished
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if "checkpoints" in str(path)}
    lines = (directory / "metrics.jsonl").read_bytes()
    again = train(config, directory)
    assert (again.step, again.loss, again.validation_loss) == (9, None, None)
    for one, other in zip(jax.tree.leaves(again.model), jax.tree.leaves(result.model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (directory / "metrics.jsonl").read_bytes() == lines
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_status(directory)["state"] == "trained"


def test_the_model_of_a_run_is_had_back(finished):
    config, directory, result = finished
    model, tokenizer = load_model(directory)
    tokens = np.asarray([tokenizer.encode("the quick brown")])
    run = jax.jit(lambda model: model(tokens).logits)
    np.testing.assert_array_equal(run(model), run(result.model))
    scaled = dataclasses.replace(
        config.model, position=dataclasses.replace(config.model.position, scaling=LinearConfig())
    )
    other, _ = load_model(directory, scaled)
    np.testing.assert_array_equal(other.embedding[...], model.embedding[...])
    assert np.abs(np.asarray(run(other) - run(model))).max() > 1e-4
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load_model(directory, dataclasses.replace(config.model, bias=True))


def test_mup_is_no_other_training_at_its_base_width_and_another_beyond(finished, tiny, tmp_path, read_metrics):
    _, directory, _ = finished
    config = tiny("model.mup_base.width=32")
    train(config, tmp_path / "same")
    assert read_metrics(tmp_path / "same") == read_metrics(directory)
    (_, found), (_, plain) = newest(tmp_path / "same"), newest(directory)
    assert found.keys() == plain.keys(), "with the same state of the optimizer"
    for name, array in plain.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    train(tiny("model.mup_base.width=16", "train.steps=1"), tmp_path / "other")
    assert read_metrics(tmp_path / "other")[0]["loss"] != read_metrics(directory)[0]["loss"]


def test_documents_and_accumulation_and_dropout_resume_bit_for_bit(
    tiny, tmp_path, monkeypatch, read_metrics, read_status, interrupt_after
):
    config = tiny(
        "data.packing=documents", "train.accumulation=2", "model.residual_dropout=0.1", "model.attention_dropout=0.1"
    )
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted, match=r"parts: interrupted at step [56], saved; run again to go on") as caught:
            train(config, tmp_path / "parts")
    status = read_status(tmp_path / "parts")
    assert status["state"] == "interrupted"
    assert status["message"] == str(caught.value)
    assert newest(tmp_path / "parts")[0] == status["step"] < 9
    result = train(config, tmp_path / "parts")
    assert result.step == 9
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")
    (step, resumed), (_, whole) = newest(tmp_path / "parts"), newest(tmp_path / "whole")
    assert step == 9
    assert resumed.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)


def test_a_crash_goes_on_from_the_last_checkpoint(tiny, tmp_path, finished, monkeypatch, read_metrics):
    """Killed after step 6, with the checkpoint of step 4: steps 5 and 6 are done and written again."""

    class Killed(BaseException):
        pass

    write_line = Recorder.metrics

    def write_and_die(recorder, **entry):
        write_line(recorder, **entry)
        if entry["step"] == 6:
            recorder._metrics._file.write(b'{"step": 7, "lo')
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "metrics", write_and_die)
        with pytest.raises(Killed):
            train(tiny(), tmp_path / "run")
    assert newest(tmp_path / "run")[0] == 4
    train(tiny(), tmp_path / "run")
    assert read_metrics(tmp_path / "run") == read_metrics(finished[1])
    (_, again), (_, whole) = newest(tmp_path / "run"), newest(finished[1])
    for name, array in whole.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize("how", ["flipped", "cut short", "deleted"])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path, finished, read_metrics, read_status, caplog, how
):
    """That of step 9, so that training goes on from step 8, and ends with the same numbers and the same records."""
    config, whole, _ = finished
    directory = shutil.copytree(whole, tmp_path / "run")
    path = max((directory / "checkpoints" / "9" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    path.unlink()
    if how != "deleted":
        path.write_bytes(content[:-1] if how == "cut short" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(CheckpointError, match=rf"{path}: is .*; train again, which goes on from the newest"):
        load_model(directory)
    train(config, directory)
    assert [record.getMessage() for record in caplog.records if "going back" in record.getMessage()] == [
        f"{path}: is {'missing' if how == 'deleted' else 'damaged (its checksum differs)'}; going back to the "
        "checkpoint of step 8"
    ]
    assert read_metrics(directory) == read_metrics(whole)
    assert read_status(directory) == read_status(whole)
    (_, again), (_, once) = newest(directory), newest(whole)
    for name, array in once.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_a_signal_while_validating_is_answered_with_a_save(tiny, tmp_path, monkeypatch, read_status):
    validate = loop._Loop.validate

    def validate_and_stop(self, model):
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(self, model)

    monkeypatch.setattr(loop._Loop, "validate", validate_and_stop)
    config = tiny("train.validate_every=2", "train.checkpoint_every=100")
    with pytest.raises(Interrupted, match="interrupted at step 3, saved"):
        train(config, tmp_path / "run")
    assert newest(tmp_path / "run")[0] == 3 == read_status(tmp_path / "run")["step"]


# ------------------------------------------------------------------------------------------------------------ failures


def test_a_loss_that_is_no_number_stops_the_run(tiny, tmp_path, read_status):
    config = tiny("train.learning_rate=1e38", "train.schedule={type: constant, warmup: 0}", "train.checkpoint_every=1")
    with pytest.raises(TrainingError) as caught:
        train(config, tmp_path / "run")
    message = str(caught.value)
    assert "at step 2 the loss is nan" in message
    assert "the last good checkpoint is step 1" in message
    assert "lower train.learning_rate" in message
    assert read_status(tmp_path / "run") == {"state": "failed", "step": 2, "steps": 9, "message": message}
    assert newest(tmp_path / "run")[0] == 1


def test_a_gradient_that_is_no_number_stops_the_run_before_any_checkpoint(tiny, tmp_path, monkeypatch):
    make = functions.make_train_step

    def make_broken(*arguments, **named):
        step = make(*arguments, **named)

        def broken(state, batch):
            state, metrics = step(state, batch)
            return state, {**metrics, "gradient_norm": jnp.where(state.step == 3, jnp.inf, metrics["gradient_norm"])}

        return broken

    monkeypatch.setattr(functions, "make_train_step", make_broken)
    with pytest.raises(TrainingError, match=r"at step 3 the loss is \d.* norm inf; no checkpoint was saved yet"):
        train(tiny(), tmp_path / "run")


def test_another_configuration_in_the_folder_is_refused(finished, tiny):
    _, directory, _ = finished
    with pytest.raises(ConfigError, match="holds a run of another configuration"):
        train(tiny("train.steps=10"), directory)


def test_another_tokenizer_in_the_folder_is_refused(tiny, tmp_path):
    decode(TokenizerConfig, "word").train(["some words"]).save(tmp_path / "run" / "tokenizer")
    with pytest.raises(DataError, match=r"run was made with the tokenizer [0-9a-f]+, not with this byte tokenizer"):
        train(tiny(), tmp_path / "run")


def test_a_tokenizer_is_kept_whole_or_not_at_all(tiny, tmp_path, monkeypatch):
    dataset = tiny().data.prepare()

    def half(self, directory):
        directory.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(dataset.tokenizer), "save", half)
        with pytest.raises(KeyboardInterrupt):
            loop.keep_tokenizer(tmp_path, dataset)
    for _ in range(2):
        loop.keep_tokenizer(tmp_path, dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
    assert load_tokenizer(tmp_path / "tokenizer").fingerprint == dataset.tokenizer.fingerprint


def test_other_data_in_the_folder_is_refused(tiny, tmp_path, corpus):
    """The same path with other text: the place in the data would be another batch's."""
    text, run = tmp_path / "text", tmp_path / "run"
    shutil.copytree(corpus, text)
    config = tiny(f"data.corpus.path={text}", "train.steps=4")
    train(config, run)
    (text / "0.txt").write_text("another text entirely " * 40)
    with pytest.raises(CheckpointError, match=r"cannot continue with other data \(dataset_fingerprint"):
        train(config, run)


def test_a_checkpoint_of_another_configuration_is_refused(finished, tiny, tmp_path):
    """Copied by hand, say: its schedule and model are another run's."""
    _, directory, _ = finished
    other = tiny("train.steps=20")
    shutil.copytree(directory / "checkpoints", tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"has checkpoints and no config\.yaml that says of what"):
        train(other, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(write_yaml(encode(other)))
    with pytest.raises(CheckpointError, match=r"was saved by a run of another configuration"):
        train(other, tmp_path / "run")


def test_a_trained_run_without_its_last_step_is_not_taken_for_whole(finished, tmp_path):
    config, directory, result = finished
    run = tmp_path / "run"
    shutil.copytree(directory, run)
    assert has_last_step(run, config)
    shutil.rmtree(run / "checkpoints" / "9")
    assert not has_last_step(run, config)
    with pytest.raises(CheckpointError, match=r"was trained to step 9, whose checkpoint is gone; .* go on from step 8"):
        load_model(run)
    assert load_model(run, checkpoint=8)
    assert train(config, run).loss == result.loss
    assert has_last_step(run, config)


def test_validation_text_that_is_too_short_is_told_before_training(tiny, tmp_path, monkeypatch):
    def too_short(dataset, batch_size, wanted):
        raise DataError("validation has 3 tokens")

    monkeypatch.setattr(TextDataset, "validation_batches", too_short)
    with pytest.raises(DataError, match="validation has 3 tokens"):
        train(tiny(), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_folder_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"file/run: the run folder cannot be written"):
        train(tiny(), tmp_path / "file" / "run")


def test_too_little_text_says_how_much_is_needed(tiny, tmp_path, read_status):
    wanted = r"train has \d+ tokens, needs 65537 for a batch of 4096 sequences of 16 tokens"
    with pytest.raises(DataError, match=wanted):
        train(tiny("train.batch_size=4096"), tmp_path / "run")
    status = read_status(tmp_path / "run")
    assert status["state"] == "failed"
    assert re.search(wanted, status["message"])


# ------------------------------------------------------------------------------------------------------------- watching


def test_a_line_says_how_fast_and_how_large(finished):
    _, directory, _ = finished
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert "step_seconds_p50" not in lines[0], "the first step compiles"
    assert all(line["step_seconds_p50"] == line["step_seconds_p99"] > 0 for line in lines[1:]), "one step a line"
    assert all(line["parameter_norm"] > 0 and line["peak_memory_bytes"] > 2**20 for line in lines)
    assert not any("share_of_peak" in line for line in lines), "a CPU's peak is not known"


def test_the_share_of_a_known_peak_is_written_and_shown(tiny, tmp_path, monkeypatch, capsys):
    config = tiny("train.steps=3", "train.log_every=3")
    monkeypatch.setattr(loop, "peak_flops", lambda kind: 1e6)
    train(config, tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    flops = dataclasses.replace(config.model, vocab_size=257).flops_per_token(16)
    assert line["share_of_peak"] == pytest.approx(line["tokens_per_second"] * flops / 1e6, rel=0.1)
    assert "% of peak" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("train.accumulation=2", "data.packing=documents")], ids=["plain", "parts"])
def test_statistics_by_layer_change_nothing(finished, tiny, tmp_path, read_metrics, more):
    if more:
        train(tiny(*more), tmp_path / "without")
    without = tmp_path / "without" if more else finished[1]
    watched = tmp_path / "watched"
    train(tiny("train.layer_statistics=true", "train.log_every=2", *more), watched)
    (_, once), (_, again) = newest(without), newest(watched)
    for name, array in once.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    assert not (without / "layers.jsonl").exists()
    metrics = {entry["step"]: entry for entry in read_metrics(without) if "loss" in entry}
    lines = [json.loads(line) for line in (watched / "layers.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 9]
    for line in lines:
        step = line.pop("step")
        assert set(line) == {"gradient_norm", "parameter_norm", "update_norm"}
        assert len(line["update_norm"]["blocks/mixer/query"]) == 2
        assert line["update_norm"]["embedding"] > 0
        for name in ("gradient_norm", "parameter_norm"):
            parts = np.concatenate([np.atleast_1d(norm) for norm in line[name].values()])
            np.testing.assert_allclose(np.sqrt((parts**2).sum()), metrics[step][name], rtol=1e-5)


def test_statistics_by_layer_go_on_where_the_run_does(tiny, tmp_path, monkeypatch, interrupt_after):
    config = tiny("train.layer_statistics=true", "train.tensorboard=true")
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "parts")
    train(config, tmp_path / "parts")
    files = [tmp_path / name / "layers.jsonl" for name in ("whole", "parts")]
    assert files[0].read_text() == files[1].read_text()


# -------------------------------------------------------------------------------------------------------------- signals


def test_the_first_signal_is_remembered_and_the_second_ctrl_c_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_signals_alone():
    found = []

    def inside():
        with interruptible() as stopping:
            found.append(stopping())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [False]
