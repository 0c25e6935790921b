"""Training that begins with the weights of another run."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from jaxgpt.config import content_hash, decode, encode, write_yaml
from jaxgpt.convert import load_pretrained, save_pretrained
from jaxgpt.data.tokenizers.byte import ByteConfig
from jaxgpt.errors import CheckpointError, ConfigError, ContextTooLong, DataError, Interrupted
from jaxgpt.nn.params import flatten
from jaxgpt.nn.position.rope_scaling import LinearConfig, YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.train import loop
from jaxgpt.train.__main__ import main
from jaxgpt.train.loop import train
from jaxgpt.train.run import RunConfig
from jaxgpt.train.start import continue_from, extended, load_model
from jaxgpt.train.surgery import StartConfig

EXTEND = ["extend.type=yarn", "extend.factor=4", "data.sequence_length=64", "train.steps=2"]


@pytest.fixture(scope="module")
def parent(tmp_path_factory, tiny, cache_home):
    """A trained run with rope, and its weights."""
    place = tmp_path_factory.mktemp("runs") / "parent"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGPT_CACHE", str(cache_home))
        model = train(tiny("train.steps=3"), place).model
    return place, {name: np.asarray(leaf) for name, leaf in flatten(model).items()}


def position_of(config):
    return config.model.position


def test_the_configuration_is_the_parents_with_the_scaling_replaced(parent, tiny):
    config = continue_from(parent[0], [], EXTEND)
    assert position_of(config) == RopeConfig(scaling=YarnConfig(factor=4.0))
    assert (config.data.sequence_length, config.model.train_length, config.train.steps) == (64, 16, 2)
    assert config.train.batch_size == 4
    assert config.start is not None
    assert (config.start.hash, config.start.folder) == (tiny("train.steps=3").hash, str(parent[0]))
    assert decode(RunConfig, encode(config)) == config


def test_another_scaling_by_its_own_path_keeps_the_old_length_too(parent):
    config = continue_from(parent[0], [], ["model.position.scaling.type=linear", "data.sequence_length=64"])
    assert position_of(config).scaling == LinearConfig()
    assert config.model.train_length == 16


def test_a_configuration_without_a_start_hashes_as_before(tiny):
    config = tiny()
    assert encode(config)["start"] is None
    before = {name: value for name, value in vars(config).items() if name != "start"}
    assert config.hash == content_hash(before) != dataclasses.replace(config, start=StartConfig("x")).hash


def test_training_begins_with_the_weights_and_goes_on(parent, tmp_path, monkeypatch, capsys):
    place, weights = parent
    config = continue_from(place, [], [*EXTEND, "train.steps=3", "train.checkpoint_every=1"])
    assert config.start is not None
    begun = []
    steps = loop._Loop._steps

    def watch(self, state, *rest):
        begun.append({name: np.array(leaf) for name, leaf in flatten(state.model).items()})
        begun.append([np.array(leaf) for leaf in jax.tree.leaves(state.optimizer)])
        begun.append(int(state.step))
        return steps(self, state, *rest)

    monkeypatch.setattr(loop._Loop, "_steps", watch)
    model = train(config, tmp_path / "whole").model
    assert begun[2] == 0
    assert all((begun[0][name] == weights[name]).all() for name in weights)
    assert all((leaf == 0).all() for leaf in begun[1])
    printed = capsys.readouterr().err
    assert f"weights of {place} (step 3): {len(weights)} kept, 0 changed, 0 added, 0 dropped" in printed
    assert "  kept     embedding" in printed
    told = json.loads((tmp_path / "whole" / "surgery.json").read_text())
    assert (told["run"], told["step"], len(told["parameters"])) == (config.start.hash, 3, len(weights))

    # Interrupted after a step and resumed: the same end, and the weights are not put in again.
    with monkeypatch.context() as patch:
        patch.setattr(loop, "interruptible", lambda: loop.contextlib.nullcontext(lambda: True))
        with pytest.raises(Interrupted):
            train(config, tmp_path / "parts")
    monkeypatch.setattr(loop, "starting_model", lambda *_: pytest.fail("begun twice"))
    resumed = train(config, tmp_path / "parts").model
    for name, leaf in flatten(resumed).items():
        assert (np.asarray(leaf) == np.asarray(flatten(model)[name])).all(), name
    assert load_model(tmp_path / "parts")[0].config.position.scaling.factor == 4.0


def test_from_the_command_line(parent, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--from", str(parent[0]), "--set", *EXTEND]) == 0
    config = continue_from(parent[0], [], EXTEND)
    assert capsys.readouterr().out.startswith(f"runs/single/from-parent-{config.hash}: 2 steps, validation loss")


def test_a_learned_table_grows_only_when_asked(tmp_path, tiny):
    train(tiny("model.position.type=learned", "train.steps=1"), tmp_path / "learned")
    longer = ["data.sequence_length=24", "train.steps=1"]
    with pytest.raises(ContextTooLong, match="learned has values for 16 positions, and 24 are needed"):
        train(continue_from(tmp_path / "learned", [], longer), tmp_path / "short")
    longer.append("model.position.num_positions=24")
    with pytest.raises(CheckpointError, match=r"position/table is float32\[16, 32\], .* start.grow=\[position/table\]"):
        train(continue_from(tmp_path / "learned", [], longer), tmp_path / "refused")
    model = train(continue_from(tmp_path / "learned", [], [*longer, "start.grow=[position/table]"]), tmp_path / "grown")
    assert model.model.position.table.shape == (24, 32)
    [grown] = [
        one
        for one in json.loads((tmp_path / "grown" / "surgery.json").read_text())["parameters"]
        if one["action"] == "changed"
    ]
    assert grown == {
        "name": "position/table",
        "action": "changed",
        "array": "float32[24, 32]",
        "how": "had 16 rows, 8 drawn anew behind them",
    }


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (["model.position.type=alibi", "extend.type=yarn"], ConfigError, "extend: rope is what can be scaled"),
        (["extend.type=yarm"], ConfigError, "extend.type: no scaling is called 'yarm'; did you mean 'yarn'"),
        (["extend.factor=4"], ConfigError, "extend: needs `type:`"),
    ],
)
def test_what_cannot_be_extended(parent, changes, error, message):
    with pytest.raises(error, match=message):
        continue_from(parent[0], [], changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (["start.hash=0badcafe"], CheckpointError, "parent: holds the run .*, but this one begins with .* 0badcafe"),
        (["start.folder=/nowhere"], CheckpointError, "/nowhere: is no run folder"),
        (["model.width=64"], CheckpointError, r"has float32\[.*; match its shape, or start.add="),
        (["data.tokenizer.type=character", "model.vocab_size=300"], DataError, "was made with the tokenizer"),
    ],
)
def test_weights_that_cannot_be_taken(parent, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train(continue_from(parent[0], [], ["train.steps=1", *changes]), tmp_path / "run")


def test_a_run_that_is_not_at_its_end_gives_no_weights(tmp_path, tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "interruptible", lambda: loop.contextlib.nullcontext(lambda: True))
        with pytest.raises(Interrupted):
            train(tiny(), tmp_path / "parent")
    with pytest.raises(CheckpointError, match="parent: is at step 1 of 9; train it to its end first"):
        train(continue_from(tmp_path / "parent", [], ["train.steps=1"]), tmp_path / "run")


# ------------------------------------------------------------------------------------- checkpoints of transformers


def begun(llama_checkpoint, tiny, tmp_path, *changes):
    """A run that begins with it, on the parent's data."""
    base = encode(tiny())
    base = {name: base[name] for name in ("data", "train")}
    path = tmp_path / "data.yaml"
    path.write_text(write_yaml(base))
    return continue_from(llama_checkpoint, [path], ["train.steps=0", *changes])


def test_a_run_of_no_steps_has_the_weights_of_the_folder(llama_checkpoint, tiny, tmp_path, read_status):
    config = begun(llama_checkpoint, tiny, tmp_path)
    assert (config.start.folder, config.model.train_length, config.tokens) == (str(llama_checkpoint), 16, 0)
    result = train(config, tmp_path / "run")
    assert (result.step, read_status(tmp_path / "run")["state"]) == (0, "trained")
    assert not (tmp_path / "run" / "checkpoints").exists()
    model, _ = load_model(tmp_path / "run")
    there, _ = load_pretrained(llama_checkpoint)
    for name, leaf in flatten(model).items():
        np.testing.assert_array_equal(leaf, flatten(there)[name])
    other = extended(config.model, {"type": "yarn", "factor": 2.0})
    assert load_model(tmp_path / "run", other)[0].config.position.scaling == YarnConfig(factor=2.0)


def test_a_run_goes_on_from_the_folder_or_from_a_run_of_no_steps(llama_checkpoint, tiny, tmp_path, read_metrics):
    train(begun(llama_checkpoint, tiny, tmp_path), tmp_path / "given")
    direct = train(begun(llama_checkpoint, tiny, tmp_path, "train.steps=2"), tmp_path / "direct")
    assert [line["step"] for line in read_metrics(tmp_path / "direct") if "loss" in line][-1] == 2
    through = train(continue_from(tmp_path / "given", [], ["train.steps=2"]), tmp_path / "through")
    for name, leaf in flatten(direct.model).items():
        np.testing.assert_array_equal(leaf, flatten(through.model)[name])


def test_another_checkpoint_in_the_folder_is_refused(llama_checkpoint, tiny, tmp_path):
    config = begun(llama_checkpoint, tiny, tmp_path)
    model, _ = load_pretrained(llama_checkpoint)
    moved = shutil.copytree(llama_checkpoint, tmp_path / "moved")
    again = dataclasses.replace(config, start=dataclasses.replace(config.start, folder=str(moved)))
    assert again.hash == config.hash
    train(again, tmp_path / "same")
    changed = jax.tree.map(lambda leaf: leaf + 1, model)
    save_pretrained(changed, model.config, moved)
    with pytest.raises(CheckpointError, match=r"moved: holds the checkpoint .*, but this run begins with"):
        train(again, tmp_path / "other")


def test_no_steps_need_weights(tiny):
    with pytest.raises(ConfigError, match="no weights are given to begin with"):
        tiny("train.steps=0")


def test_a_checkpoint_without_a_tokenizer_needs_to_be_told(llama_checkpoint):
    with pytest.raises(ConfigError, match=r"has no tokenizer.json, and its model knows one tokenizer only"):
        continue_from(llama_checkpoint)
    assert continue_from(llama_checkpoint, [], ["data.tokenizer=byte", "train.steps=0"]).data.tokenizer == ByteConfig()


def test_a_folder_that_is_neither(tmp_path):
    with pytest.raises(CheckpointError, match="is no run folder"):
        continue_from(tmp_path)
