"""Mixtures: parts, weights, and a dataset made of them."""

import pytest

from jaxgpt.config import decode
from jaxgpt.data.corpora.base import CorpusConfig
from jaxgpt.data.dataset import DataConfig
from jaxgpt.errors import ConfigError, DataError


@pytest.fixture
def raw(folder, tmp_path):
    """Twelve documents, and three of another kind."""
    code = tmp_path / "code"
    code.mkdir()
    for number in range(3):
        (code / f"{number}.txt").write_text(f"def f{number}(): return {number}\n" * 20)
    return {
        "type": "mixture",
        "parts": {
            "prose": {"corpus": {"type": "text", "path": str(folder)}, "weight": 1},
            "code": {"corpus": {"type": "text", "path": str(code)}, "weight": 3},
        },
    }


def test_documents_say_where_they_are_from(raw):
    corpus = decode(CorpusConfig, raw, "data.corpus")
    found = list(corpus.documents())
    assert (found[0].name, found[0].group) == ("code/0.txt", "code"), "by name, however they are written down"
    assert (found[-1].name, found[-1].group) == ("prose/11.txt", "prose")
    assert corpus.weights() == {"prose": 0.25, "code": 0.75}


def test_weights_change_the_batches_and_not_the_text(raw):
    corpus = decode(CorpusConfig, raw, "data.corpus")
    before = corpus.fingerprint()
    data = {"type": "text", "tokenizer": {"type": "byte"}, "sequence_length": 32}
    first = decode(DataConfig, {**data, "corpus": raw}, "data").prepare()
    raw["parts"]["code"]["weight"] = 1
    assert decode(CorpusConfig, raw, "data.corpus").fingerprint() == before
    second = decode(DataConfig, {**data, "corpus": raw}, "data").prepare()
    assert first.train.tokens.base.filename == second.train.tokens.base.filename
    assert first.fingerprint != second.fingerprint

    def share_of_code(dataset):
        rows = [row for _, batch in zip(range(30), dataset.batches(4, 0), strict=False) for row in batch["inputs"]]
        return sum("return" in dataset.tokenizer.decode(row) for row in rows) / len(rows)

    assert share_of_code(first) == pytest.approx(0.75, abs=0.02)
    assert share_of_code(second) == pytest.approx(0.5, abs=0.02)


def test_every_corpus_has_validation_documents(raw):
    data = {"type": "text", "tokenizer": {"type": "byte"}, "sequence_length": 32, "corpus": raw}
    dataset = decode(DataConfig, data, "data").prepare()
    groups = [name for name, _ in dataset.validation.groups]
    assert groups == ["code", "prose"]
    assert [dataset.validation.group(name).num_documents for name in groups] == [1, 1]
    assert [dataset.train.group(name).num_documents for name in groups] == [2, 11]
    tuning = decode(DataConfig, {**data, "tuning_fraction": 0.3}, "data").prepare()
    assert [tuning.validation.group(name).num_documents for name in groups] == [1, 3]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"one": {"corpus": "stdlib"}}, "parts: name at least two corpora"),
        ({"one": {"corpus": "stdlib"}, "a/b": {"corpus": "stdlib"}}, "'a/b' must be letters"),
        ({"one": {"corpus": "stdlib"}, "two": {"corpus": "stdlib", "weight": 0}}, "weight: must be positive"),
    ],
)
def test_mistakes_are_named(parts, message):
    with pytest.raises(ConfigError, match=message):
        decode(CorpusConfig, {"type": "mixture", "parts": parts}, "data.corpus")


def test_a_corpus_of_one_document_is_named(raw, tmp_path):
    raw["parts"]["code"]["corpus"]["path"] = str(tmp_path / "code" / "0.txt")
    data = {"type": "text", "tokenizer": {"type": "byte"}, "corpus": raw}
    with pytest.raises(DataError, match=r"data.corpus code: 1 document\(s\), but one for training"):
        decode(DataConfig, data, "data").prepare()
