import dataclasses

import jax
import numpy as np
import pytest

import jaxgpt
from jaxgpt.config import encode, write_yaml
from jaxgpt.errors import CheckpointError, ConfigError, UserError
from jaxgpt.models.base import parameter_count
from jaxgpt.train.run import RunConfig, encode_defaults, load_config, load_raw, open_folder, read_config, with_sizes


def test_sizes_left_open_are_taken_from_the_data():
    config = load_config([], ["data.tokenizer=byte", "data.sequence_length=24"])
    assert (config.model.vocab_size, config.model.train_length) == (257, 24)
    given = load_config([], ["data.tokenizer=byte", "model.vocab_size=300", "model.train_length=12"])
    assert (given.model.vocab_size, given.model.train_length) == (300, 12)
    unknown = load_config([], ["data.tokenizer=word"]).model
    assert unknown.vocab_size is None or unknown.vocab_size > 0
    assert with_sizes(dataclasses.replace(given.model, vocab_size=None), 99, 7).vocab_size == 99


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused():
    with pytest.raises(ConfigError, match=r"model\.vocab_size: 256 is less than the 257 tokens of the tokenizer"):
        load_config([], ["data.tokenizer=byte", "model.vocab_size=256"])


def test_layers_files_and_overrides(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 1\ntrain: {steps: 5, learning_rate: 1e-4}\n")
    (tmp_path / "b.yaml").write_text("train: {steps: 6}\nmodel: {position: alibi}\n")
    config = jaxgpt.load_config([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["train.batch_size=2"])
    assert (config.seed, config.train.steps, config.train.learning_rate, config.train.batch_size) == (1, 6, 1e-4, 2)
    assert encode(config)["model"]["position"]["type"] == "alibi"
    assert load_config(tmp_path / "a.yaml").seed == load_config(str(tmp_path / "a.yaml")).seed == 1
    assert load_raw([tmp_path / "a.yaml"])["train"]["batch_size"] == RunConfig().train.batch_size
    assert encode_defaults()["model"]["vocab_size"] is None


def test_tokens_of_a_run():
    assert load_config([], ["train.steps=3", "train.batch_size=4", "data.sequence_length=16"]).tokens == 192


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=-1", "train: steps must be at least 0, got -1"),
        ("train.steps=0", "train.steps is 0, and no weights are given"),
        ("train.keep_checkpoints=0", "train: keep_checkpoints must be at least 1"),
        ("train.learning_rate=0", "train: learning_rate must be positive"),
        ("train.learning_rate=.nan", "train.learning_rate: expected a finite number, got nan"),
        ("train.gradient_clip=-1", "train: gradient_clip must be positive or null"),
        ("train.accumulation=3", "train: accumulation 3 does not divide batch_size 16"),
        ("train.steps=1.5", "train.steps: expected a whole number, got 1.5"),
        ("seed=-1", "configuration: seed must not be negative"),
        ("threads=0", "threads at least 1"),
        ("seed=4294967296", "seed must be below 2^32, got 4294967296"),
        ("schema_version=7", "schema_version 7 is not 1, the one this jaxgpt reads"),
        ("train.optimizer=adam", "train.optimizer.type: no optimizer is called 'adam'; did you mean 'adamw'"),
        ("train.schedule=cosin", "train.schedule.type: no schedule is called 'cosin'; did you mean 'cosine'"),
        ("model=decodr", "model.type: no model is called 'decodr'; did you mean 'decoder'"),
        ("evaluate.x=1", "evaluate: no such key"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config([], [override])
    assert message in str(caught.value)


def test_no_clipping_can_be_asked_for():
    assert load_config([], ["train.gradient_clip=null"]).train.gradient_clip is None


def test_folder_keeps_its_configuration(tmp_path, tiny):
    config, place = tiny(), tmp_path / "deep" / "run"
    open_folder(place, config)
    assert read_config(place) == config
    text = (place / "config.yaml").read_text()
    open_folder(place, tiny("train.log_every=3"))  # changes no result
    assert (place / "config.yaml").read_text() == text
    with pytest.raises(ConfigError, match=rf"run: holds a run of another configuration \({config.hash}, this one is"):
        open_folder(place, tiny("seed=5"))
    assert [path.name for path in place.iterdir()] == ["config.yaml"]


def test_folder_that_cannot_be_written(tmp_path, tiny):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        UserError, match=r"file/run: the run folder cannot be written \(.+\); choose another with --run-dir"
    ):
        open_folder(tmp_path / "file" / "run", tiny())


def test_folder_without_or_with_a_broken_configuration(tmp_path, tiny):
    with pytest.raises(CheckpointError, match=r"is no run folder \(no config.yaml\)"):
        read_config(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: [1")
    with pytest.raises(ConfigError, match=r"config\.yaml: not valid YAML"):
        open_folder(tmp_path, tiny())


def test_saved_configuration_is_complete(tiny):
    """Every default is written, so that a later default changes no earlier run."""
    assert encode(tiny()).keys() == {field.name for field in dataclasses.fields(RunConfig)}
    assert "beta2: 0.95" in write_yaml(encode(tiny()))


def test_abstract_model_of_a_run(tiny):
    model = jax.eval_shape(tiny().model.make, jax.random.key(0))
    assert parameter_count(model) == 257 * 32 + 32 + 2 * (12 * 32 * 32 + 2 * 32)
    assert np.dtype(model.embedding.dtype) == np.float32
