"""The interpreter's own source: modules, not tests, not other people's packages."""

from __future__ import annotations

import itertools

import pytest

from jaxgpt.data.corpora import stdlib
from jaxgpt.data.corpora.stdlib import StdlibConfig
from jaxgpt.errors import DataError


def test_holds_the_modules_of_this_interpreter():
    documents = {document.name: document.text for document in StdlibConfig().documents()}
    assert "json/decoder.py" in documents
    assert documents["json/__init__.py"].startswith('r"""JSON (JavaScript Object Notation)')
    assert len(documents) > 300
    assert list(documents) == sorted(documents)


@pytest.fixture
def small(tmp_path, monkeypatch):
    for name in ("b.py", "a.py", "pkg/c.py", "test/d.py", "site-packages/e.py", "config-3/f.py", "_sysconfigdata_x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    (tmp_path / "empty.py").write_text(" \n")
    (tmp_path / "notes.txt").write_text("no source")
    monkeypatch.setattr(stdlib, "_root", lambda: tmp_path)
    return tmp_path


def test_leaves_out_tests_packages_and_what_was_generated(small):
    assert [document.name for document in StdlibConfig().documents()] == ["a.py", "b.py", "pkg/c.py"]


def test_fingerprint_follows_content_and_reads_through_the_digest(small):
    before = StdlibConfig().fingerprint()
    asked = []
    StdlibConfig().fingerprint(lambda path: asked.append(path.name) or "0")
    assert asked == ["a.py", "b.py", "empty.py", "c.py"]
    (small / "a.py").write_text("# another")
    assert StdlibConfig().fingerprint() != before


def test_an_unreadable_module_is_named(small):
    (small / "b.py").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"b\.py: cannot be read as UTF-8"):
        list(StdlibConfig().documents())


def test_an_interpreter_without_source_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib, "_root", lambda: tmp_path)
    with pytest.raises(DataError, match="no Python source lies below"):
        next(itertools.chain(StdlibConfig().documents()))
