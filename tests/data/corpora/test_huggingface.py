"""Datasets of the hub's library, here of local folders: streamed once, kept, and the hub's silence."""

import json
import sys

import pytest

from jaxgpt.config import decode
from jaxgpt.data.corpora.base import CorpusConfig
from jaxgpt.data.corpora.huggingface import HuggingFaceConfig
from jaxgpt.data.dataset import DataConfig
from jaxgpt.errors import ConfigError, DataError


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A folder with thirty texts, one of them empty."""
    place = tmp_path / "set"
    place.mkdir()
    texts = ["" if number == 3 else f"text {number} of many words\n" * 5 for number in range(30)]
    (place / "train.jsonl").write_text("\n".join(json.dumps({"id": n, "text": t}) for n, t in enumerate(texts)))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return place


@pytest.mark.torch
def test_texts_are_streamed_once_and_kept(rows, monkeypatch):
    corpus = HuggingFaceConfig(str(rows), max_documents=20)
    found = list(corpus.documents())
    assert (len(found), found[0].name, found[-1].name) == (19, "0", "19")
    assert found[1].text.startswith("text 1 of")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert list(corpus.documents()) == found
    assert len(corpus.fingerprint()) == 64
    assert corpus.fingerprint() != HuggingFaceConfig(str(rows), max_documents=21).fingerprint()
    before = corpus.fingerprint()
    (rows / "train.jsonl").write_text('{"text": "another"}\n')
    assert corpus.fingerprint() != before


@pytest.mark.torch
def test_a_dataset_of_it_trains(rows):
    raw = {"type": "text", "tokenizer": {"type": "byte"}, "sequence_length": 16}
    corpus = {"type": "huggingface", "name": str(rows), "max_documents": 30}
    dataset = decode(DataConfig, {**raw, "corpus": corpus}, "data").prepare()
    assert dataset.train.num_documents + dataset.validation.num_documents == 29
    assert next(dataset.batches(2, 0))["inputs"].shape == (2, 16)


@pytest.mark.torch
def test_another_column_is_named(rows):
    with pytest.raises(ConfigError, match=r"no text under 'body' in .* \(it has 'id', 'text'\); set text_field"):
        list(HuggingFaceConfig(str(rows), max_documents=2, text_field="body").documents())
    with pytest.raises(DataError, match="set cannot be read"):
        list(HuggingFaceConfig(str(rows), max_documents=2, split="tset").documents())


class Silent:
    """A hub that nobody reaches."""

    class HfApi:
        def dataset_info(self, name, revision):
            raise ConnectionError("no route to host\nand more")


def test_without_a_network_a_commit_is_enough(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Silent)
    corpus = HuggingFaceConfig("some/where", max_documents=2)
    with pytest.raises(DataError, match=r"commit of some/where \(no route to host\); where there is no network"):
        corpus.fingerprint()
    known = HuggingFaceConfig("some/where", max_documents=2, revision="0" * 40)
    assert len(known.fingerprint()) == 64
    assert known.fingerprint() != HuggingFaceConfig("some/where", max_documents=2, revision="1" * 40).fingerprint()


def test_it_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="needs the extra hf"):
        list(HuggingFaceConfig("some/where", max_documents=2, revision="0" * 40).documents())


def test_how_many_must_be_said():
    with pytest.raises(ConfigError, match="max_documents"):
        decode(CorpusConfig, {"type": "huggingface", "name": "some/where"}, "data.corpus")
    with pytest.raises(ConfigError, match="max_documents: must be at least 1"):
        decode(CorpusConfig, {"type": "huggingface", "name": "some/where", "max_documents": 0}, "data.corpus")
