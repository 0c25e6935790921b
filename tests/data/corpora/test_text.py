"""A user's own files: what is read, how it is cut into documents, and what every mistake is told."""

from __future__ import annotations

import gzip
import json
import sys

import pytest

from jaxgpt.config import decode
from jaxgpt.data.corpora.base import CorpusConfig
from jaxgpt.data.corpora.text import TextConfig
from jaxgpt.errors import ConfigError, DataError


def read(**fields):
    return [(document.name, document.text) for document in TextConfig(**fields).documents()]


def test_plain_files_are_documents_as_they_are(tmp_path):
    (tmp_path / "b.txt").write_bytes("  Größe\r\n\n中文 ".encode())
    (tmp_path / "a.md").write_text("# Title")
    assert read(path=str(tmp_path / "b.txt")) == [("b.txt", "  Größe\r\n\n中文 ")]
    both = (str(tmp_path / "b.txt"), str(tmp_path / "a.md"))
    assert [name for name, _ in read(path=both)] == ["b.txt", "a.md"]


def test_folders_are_searched_in_order_of_name(tmp_path):
    for name in ("z.txt", "sub/a.TXT", "sub/.hidden/x.txt", ".x.txt", "picture.png", "c.md.gz"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(b"zipped") if name.endswith("gz") else name.encode())
    assert read(path=str(tmp_path / "root")) == [("c.md.gz", "zipped"), ("sub/a.TXT", "sub/a.TXT"), ("z.txt", "z.txt")]


def test_names_stay_apart_in_several_folders(tmp_path):
    for place in ("one", "two", "three/one"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.txt").write_text(place)
    names = [name for name, _ in read(path=(str(tmp_path / "two"), str(tmp_path / "three" / "one")))]
    assert names == ["two/a.txt", "one/a.txt"]
    clashing = [name for name, _ in read(path=(str(tmp_path / "one"), str(tmp_path / "three" / "one")))]
    assert len(set(clashing)) == 2
    assert len(read(path=(str(tmp_path / "one"), str(tmp_path / "one" / "a.txt")))) == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_json_lines_are_a_document_each(tmp_path, zipped):
    rows = [{"text": "one\ntwo", "body": "B"}, {"text": "\u2028 中", "body": "C"}]
    raw = b"\xef\xbb\xbf" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode() + b"\n"
    path = tmp_path / ("rows.jsonl" + ".gz" * zipped)
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    assert read(path=str(path)) == [(f"{path.name}:1", "one\ntwo"), (f"{path.name}:3", "\u2028 中")]
    assert [text for _, text in read(path=str(path), text_field="body")] == ["B", "C"]


def test_long_texts_are_cut_at_ends_of_lines_on_request(tmp_path):
    text = "".join(f"line {number}\n" for number in range(10)) + "the end"
    path = tmp_path / "book.txt"
    path.write_text(text)
    parts = read(path=str(path), document_characters=20)
    assert "".join(part for _, part in parts) == text
    assert [name for name, _ in parts] == [f"book.txt#{number}" for number in range(len(parts))]
    assert all(part.endswith("\n") and len(part) < 28 for _, part in parts[:-1])
    assert read(path=str(path), document_characters=1000) == [("book.txt", text)]


def test_a_file_of_many_documents_is_cut_at_its_headings(tmp_path):
    """As WikiText: ` = Title = ` begins an article, ` = = Section = = ` does not."""
    text = " \n = One = \n \n text \n = = Section = = \n more \n = Two = \n \n end \n"
    (tmp_path / "wiki.train.raw").write_text(text)
    found = read(path=str(tmp_path / "wiki.train.raw"), document_start=" = [^=].* = $")
    assert [name for name, _ in found] == ["wiki.train.raw@1", "wiki.train.raw@2"]
    assert [body.split(" = ")[1] for _, body in found] == ["One", "Two"]
    assert " \n" + "".join(body for _, body in found) == text


def test_a_corpus_with_a_validation_set_of_its_own(tmp_path):
    for place in ("train", "held"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text(place)
    config = TextConfig(path=str(tmp_path / "train"), validation_path=str(tmp_path / "held"))
    assert [(one.name, one.text, one.part) for one in config.documents()] == [
        ("train/a.txt", "train", "train"),
        ("validation/a.txt", "held", "validation"),
    ]
    before = config.fingerprint()
    (tmp_path / "held" / "a.txt").write_text("other")
    assert config.fingerprint() != before
    with pytest.raises(DataError, match=r"data\.corpus\.validation_path: there is no file or folder nowhere"):
        TextConfig(path=str(tmp_path / "train"), validation_path="nowhere").fingerprint()


def test_fingerprint_follows_content_names_and_fields_but_not_the_place(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text("same")
    here, there = (TextConfig(path=str(tmp_path / place)) for place in ("here", "there"))
    assert here.fingerprint() == there.fingerprint()
    assert here.fingerprint() != TextConfig(path=here.path, document_characters=9).fingerprint()
    (tmp_path / "there" / "a.txt").write_text("other")
    assert here.fingerprint() != there.fingerprint()


MISTAKES = {
    "bad.jsonl": (
        b'{"text": "a"}\n{"text": \n',
        r"bad\.jsonl, line 2: not valid JSON \(Expecting value at col",
    ),
    "field.jsonl": (
        b'\n{"body": "a", "id": 1}',
        r"line 2: no text under 'text' \(its keys are 'body', 'id'\); set",
    ),
    "list.jsonl": (b"[1]", r"list\.jsonl, line 1: no text under 'text' \(it is no object\)"),
    "number.jsonl": (b'{"text": 3}', r"number\.jsonl, line 1: no text under 'text'"),
    "half.jsonl": (b'{"text": "\\ud800"}', r"half\.jsonl, line 1: 'text' holds half of a surrogate pair"),
    "latin.txt": (b"fine\nGr\xf6\xdfe", r"latin\.txt, line 2: not UTF-8 \(byte 0xf6\); convert"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "\xf6"}', r"latin\.jsonl, line 2: not UTF-8 \(byte 0xf6\)"),
    "plain.txt.gz": (b"not zipped", r"plain\.txt\.gz: ends in \.gz but is not a complete gzip file"),
    "cut.txt.gz": (gzip.compress(b"some text" * 99)[:-9], r"cut\.txt\.gz: ends in \.gz but is not a complete gzip"),
    "blank.txt": (b" \n\t", r"blank\.txt holds no text \(only empty files or lines\)"),
    "empty.jsonl": (b'\n{"text": " "}\n', r"empty\.jsonl holds no text"),
    "table.csv": (b"a,b", r"table\.csv does not end in \.txt, \.md, \.raw, \.tokens, \.jsonl"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_with_file_and_line(tmp_path, name):
    raw, message = MISTAKES[name]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        read(path=str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_missing_paths_are_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.corpus\.path: there is no file or folder nowhere \(looked in /"):
        read(path="nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file below .*empty ends in \.txt, \.md, \.raw, \.tokens, \.jsonl"):
        TextConfig(path=str(tmp_path / "empty")).fingerprint()


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("text")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(DataError, match=r"a\.txt: cannot be read \(Permission denied\)"):
        read(path=str(path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"data\.corpus\.path: must be given"),
        ({"path": ""}, r"data\.corpus: path: must name at least one file or folder"),
        ({"path": []}, r"data\.corpus: path: must name at least one file or folder"),
        ({"path": "x", "validation_path": ""}, r"validation_path: must name at least one file or folder"),
        ({"path": "x", "document_start": "("}, r"document_start: '\(' is no regular expression"),
        ({"path": "x", "document_characters": 0}, r"document_characters: must be at least 1, got 0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        decode(CorpusConfig, {"type": "text", **fields}, "data.corpus")


def test_path_is_a_text_or_a_list():
    assert decode(CorpusConfig, {"type": "text", "path": "a.txt"}) == TextConfig(path="a.txt")
    assert decode(CorpusConfig, {"type": "text", "path": ["a", "b"]}) == TextConfig(path=("a", "b"))


@pytest.mark.torch  # the extra parquet, which hf brings
def test_tables_give_a_document_per_row(tmp_path):
    import pyarrow
    import pyarrow.parquet

    texts = [f"document {number}\n" for number in range(600)] + [None, ""]
    table = pyarrow.table({"id": list(range(602)), "content": texts})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    config = TextConfig(str(tmp_path), text_field="content")
    found = list(config.documents())
    assert (len(found), found[0].name, found[599].name) == (600, "a.parquet:1", "a.parquet:600")
    assert found[599].text == "document 599\n"
    with pytest.raises(DataError, match=r"a.parquet: no column 'text' \(it has 'id', 'content'\)"):
        list(TextConfig(str(tmp_path)).documents())
    with pytest.raises(DataError, match="row 1: 'id' is int, no text"):
        list(TextConfig(str(tmp_path), text_field="id").documents())
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"a.parquet: cannot be read as Parquet"):
        list(config.documents())


def test_tables_need_their_library(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"need the extra parquet"):
        list(TextConfig(str(tmp_path)).documents())
