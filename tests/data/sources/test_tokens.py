"""Pre-tokenised files: documents, splits, batches and mistakes; the same as from text."""

import json

import numpy as np
import pytest

from jaxgpt.config import decode, encode
from jaxgpt.data.dataset import DataConfig
from jaxgpt.errors import ConfigError, DataError

BYTE = {"type": "text", "tokenizer": {"type": "byte"}, "sequence_length": 16, "validation_fraction": 0.25}


@pytest.fixture
def text(folder):
    return decode(DataConfig, {**BYTE, "corpus": {"type": "text", "path": str(folder)}}, "data").prepare()


@pytest.fixture
def shards(text, tmp_path):
    """The training text's tokens in three files, cut in the middle of documents, and the validation text's in one."""
    place = tmp_path / "shards"
    (place / "val").mkdir(parents=True)
    tokens = np.asarray(text.train.tokens)
    for number, part in enumerate(np.split(tokens, [len(tokens) // 3, len(tokens) // 2])):
        np.save(place / f"train-{number}.npy", part)
    np.asarray(text.validation.tokens).astype("<u2").tofile(place / "val" / "val.bin")
    return place


def config_of(shards, **fields):
    paths = [str(path) for path in sorted(shards.glob("train-*"))]
    raw = {"type": "tokens", "path": paths, "tokenizer": {"type": "byte"}, "sequence_length": 16}
    return decode(DataConfig, {**raw, "validation_path": str(shards / "val"), **fields}, "data")


@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_batches_are_those_of_the_text(text, shards, packing):
    config = config_of(shards, packing=packing)
    dataset = config.prepare()
    assert [dataset.train.num_documents, dataset.validation.num_documents] == [
        text.train.num_documents,
        text.validation.num_documents,
    ]
    np.testing.assert_array_equal(dataset.train.document(3), text.train.document(3))
    iterator = dataset.batches(4, seed=0)
    first = [next(iterator) for _ in range(5)]
    if packing == "windows":
        for batch, other in zip(first, text.batches(4, seed=0), strict=False):
            np.testing.assert_array_equal(batch["inputs"], other["inputs"])
    state = json.loads(json.dumps(iterator.get_state()))
    expected = next(iterator)
    resumed = dataset.batches(4, seed=0)
    resumed.set_state(state)
    np.testing.assert_array_equal(next(resumed)["inputs"], expected["inputs"])
    for batch, other in zip(dataset.validation_batches(4, 2), text.validation_batches(4, 2), strict=True):
        np.testing.assert_array_equal(batch["targets"], other["targets"])
    assert decode(DataConfig, encode(config), "data") == config


def test_without_validation_files_the_last_documents_are_held_out(text, shards):
    dataset = config_of(shards, validation_path=None, validation_fraction=0.3).prepare()
    count = text.train.num_documents
    held = round(0.3 * count)
    assert (dataset.train.num_documents, dataset.validation.num_documents) == (count - held, held)
    np.testing.assert_array_equal(dataset.validation.document(0), text.train.document(count - held))
    assert dataset.validation.names[0] == str(count - held)
    assert dataset.fingerprint != config_of(shards, validation_path=None, validation_fraction=0.4).prepare().fingerprint


def test_validation_files_are_not_trained_on_wherever_they_lie(shards):
    apart, among = config_of(shards).prepare(), config_of(shards, path=str(shards)).prepare()
    assert among.train.num_tokens == apart.train.num_tokens
    with pytest.raises(DataError, match=r"all its files are those of data.validation_path"):
        config_of(shards, path=str(shards / "val")).prepare()


def test_other_tokens_are_another_dataset(shards):
    before = config_of(shards).prepare()
    again = config_of(shards).prepare()
    assert before.fingerprint == again.fingerprint
    tokens = np.load(shards / "train-1.npy")
    tokens[0] ^= 1
    np.save(shards / "train-1.npy", tokens)
    assert config_of(shards).prepare().fingerprint != before.fingerprint


def test_an_unknown_tokenizer_is_a_number_of_tokens(shards):
    dataset = config_of(shards, tokenizer={"type": "numbers", "vocab_size": 300, "start": 0}).prepare()
    assert dataset.tokenizer.vocab_size == 300
    assert dataset.train.num_documents > 2


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"tokenizer": {"type": "bpe"}}, ConfigError, "data.tokenizer: bpe learns from text"),
        (
            {"tokenizer": {"type": "numbers", "vocab_size": 40, "start": 0}},
            DataError,
            r"train-0.npy: holds token \d+, and",
        ),
        ({"path": "nowhere"}, DataError, "data.path: nowhere is no file or folder with files that end in .npy or .bin"),
        ({"dtype": "float32"}, ConfigError, "data.dtype"),
        ({"tokenizer": {"type": "numbers", "vocab_size": 40, "start": 40}}, ConfigError, "start: 40 is none of the 40"),
    ],
)
def test_mistakes_are_named(shards, fields, error, message):
    with pytest.raises(error, match=message):
        config_of(shards, **fields).prepare()


def test_one_document_cannot_be_split(tmp_path):
    np.save(tmp_path / "a.npy", np.array([0, 5, 6, 7], np.uint16))
    raw = {"type": "tokens", "path": str(tmp_path), "tokenizer": {"type": "byte"}}
    with pytest.raises(DataError, match=r"data.path: 1 document\(s\), but one for training"):
        decode(DataConfig, raw, "data").prepare()
