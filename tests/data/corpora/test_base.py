"""What holds for every corpus there is, found by name."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from jaxgpt import registry
from jaxgpt.config import decode, encode
from jaxgpt.data.corpora.base import CorpusConfig, Document, digest_of, file_digest
from jaxgpt.errors import DataError

NEEDS_EXTRA = {"huggingface"}  # hf
KINDS = [
    pytest.param(kind, marks=[pytest.mark.torch] * (kind in NEEDS_EXTRA))
    for kind in sorted(registry.kinds(CorpusConfig))
]


@pytest.fixture(params=KINDS)
def corpus(request, folder):
    raw = {"type": request.param}
    fields = {field.name for field in dataclasses.fields(registry.kinds(CorpusConfig)[request.param])}
    if "path" in fields:  # corpora of a user's own files
        raw["path"] = str(folder)
    if "max_documents" in fields:  # datasets that a library reads
        raw |= {"name": str(folder), "max_documents": 20}
    if "parts" in fields:  # corpora of others
        raw["parts"] = {name: {"corpus": {"type": "text", "path": str(folder)}} for name in ("one", "two")}
    return decode(CorpusConfig, raw, "data.corpus")


def test_gives_at_least_two_documents_with_names_and_text(corpus):
    documents = list(itertools.islice(corpus.documents(), 50))
    assert len(documents) >= 2
    assert len({document.name for document in documents}) == len(documents)
    for document in documents:
        assert isinstance(document, Document)
        assert document.text.strip()
        assert document.text.encode("utf-8").decode("utf-8") == document.text


def test_order_and_fingerprint_are_the_same_every_time(corpus):
    first, again = (list(itertools.islice(corpus.documents(), 50)) for _ in range(2))
    assert first == again
    fingerprint = corpus.fingerprint()
    assert fingerprint == corpus.fingerprint()
    assert len(fingerprint) == 64
    assert int(fingerprint, 16) > 0


def test_survives_yaml(corpus):
    assert decode(CorpusConfig, encode(corpus)) == corpus


def test_the_base_class_is_no_corpus():
    with pytest.raises(TypeError, match="must define documents"):
        CorpusConfig().documents()
    with pytest.raises(TypeError, match="must define fingerprint"):
        CorpusConfig().fingerprint()


def test_digest_tells_where_parts_end():
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])
    assert digest_of(["ab", "c"]) == digest_of(iter(["ab", "c"]))


def test_digest_of_a_missing_file_names_it(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read"):
        file_digest(tmp_path / "gone.txt")
