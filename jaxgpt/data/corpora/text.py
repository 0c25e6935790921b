"""A user's own files: plain text, Markdown and JSON lines, each possibly gzipped, and Parquet."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

from jaxgpt.data.corpora.base import CorpusConfig, Digest, Document, digest_of, file_digest, is_hidden, listed
from jaxgpt.errors import DataError, first_line, from_extra
from jaxgpt.registry import register

_PLAIN = (".txt", ".md", ".raw", ".tokens")  # the latter two: WikiText
_LINES = ".jsonl"
_TABLE = ".parquet"
_READABLE = (*_PLAIN, _LINES, _TABLE)
_ROWS = 256  # of a table, decoded at a time


@register("text")
@dataclasses.dataclass(frozen=True)
class TextConfig(CorpusConfig):
    """Your own files or folders: .txt, .md, .raw and .tokens (one document per file), .jsonl (one per line), each also
    as .gz; .parquet (one per row, extra `parquet`).

    Folders are searched to any depth, hidden files aside. Text is UTF-8 and taken as it is, without a byte order
    mark. Texts that are empty or only white space are passed over.
    """

    path: str | tuple[str, ...]  # a file or folder, or a list of them; relative to where the command runs
    text_field: str = "text"  # the key of a .jsonl line, or the column of a table, that holds the text
    document_characters: int | None = None  # cut longer texts, at ends of lines, into documents of about this many
    document_start: str | None = None  # a regular expression: a line that it matches begins a document of its own
    validation_path: str | tuple[str, ...] | None = None  # where a corpus has a validation set of its own, its files

    more_documents: ClassVar[str] = (
        "add files, or cut long texts into several documents with data.corpus.document_characters=20000"
    )

    def __post_init__(self) -> None:
        for name in ("path", "validation_path"):
            paths = listed(getattr(self, name))
            if not all(paths) or (name == "path" and not paths):
                raise ValueError(f"{name}: must name at least one file or folder")
        if self.document_characters is not None and self.document_characters < 1:
            raise ValueError(f"document_characters: must be at least 1, got {self.document_characters}")
        try:
            re.compile(self.document_start or "")
        except re.error as error:
            raise ValueError(f"document_start: {self.document_start!r} is no regular expression ({error})") from None

    def _files(self, field: str) -> list[tuple[str, Path]]:
        """(name, file) in the order of the paths that `field` gives, and by name within a folder."""
        found: dict[Path, str] = {}
        paths = listed(getattr(self, field))
        for given in paths:
            path = Path(given).expanduser()
            if path.is_dir():
                inside = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if _belongs(file, path))
                if not inside:
                    raise DataError(
                        f"data.corpus.{field}: no file below {given} ends in {', '.join(_READABLE)} (or .gz)"
                    )
                for name in inside:
                    found.setdefault(path / name, name if len(paths) == 1 else f"{path.name}/{name}")
            elif not path.exists():
                raise DataError(f"data.corpus.{field}: there is no file or folder {given} (looked in {Path.cwd()})")
            elif not _kind(path):
                raise DataError(f"data.corpus.{field}: {given} does not end in {', '.join(_READABLE)} (or .gz)")
            else:
                found.setdefault(path, path.name)
        names = list(found.values())
        if len(set(names)) < len(names):  # the same name in two places: the whole path tells them apart
            found = {path: path.as_posix() for path in found}
        return [(name, path) for path, name in found.items()]

    def documents(self) -> Iterator[Document]:
        if self.validation_path is None:
            yield from self._of("path", None)
        else:
            yield from self._of("path", "train")
            yield from self._of("validation_path", "validation")

    def _of(self, field: str, part: Literal["train", "validation"] | None) -> Iterator[Document]:
        empty = True
        for name, path in self._files(field):
            for suffix, text in self._texts(path):
                for whole, document in self._split(f"{part}/" * (part is not None) + name + suffix, text):
                    for number, piece in self._cut(whole, document):
                        empty = False
                        yield Document(number, piece, part)
        if empty:
            given = ", ".join(listed(getattr(self, field)))
            raise DataError(f"data.corpus.{field}: {given} holds no text (only empty files or lines)")

    def _texts(self, path: Path) -> Iterable[tuple[str, str]]:
        """What follows the file's name in a document's, and the document, for every one of a file."""
        kind = _kind(path)
        if kind == _LINES:
            return self._lines(path)
        if kind == _TABLE:
            return self._rows(path)
        return [("", _decoded(_bytes(path), path))]

    def _rows(self, path: Path) -> Iterator[tuple[str, str]]:
        """(`:row`, text) of every row of a .parquet file, a few at a time."""
        parquet = from_extra("pyarrow.parquet", "parquet", "data.corpus: .parquet files need", DataError)
        try:
            with parquet.ParquetFile(path) as table:
                names = table.schema_arrow.names
                if self.text_field not in names:
                    has = ", ".join(map(repr, names))
                    raise DataError(f"{path}: no column {self.text_field!r} (it has {has}); set data.corpus.text_field")
                number = 0
                for batch in table.iter_batches(_ROWS, columns=[self.text_field]):
                    for text in batch.column(0).to_pylist():
                        number += 1
                        if text is not None and not isinstance(text, str):
                            raise DataError(
                                f"{path}, row {number}: {self.text_field!r} is {type(text).__name__}, no text"
                            )
                        yield f":{number}", text or ""
        except DataError:
            raise
        except Exception as error:  # its library's own, of many types
            raise DataError(f"{path}: cannot be read as Parquet ({first_line(error)})") from None

    def _lines(self, path: Path) -> Iterator[tuple[str, str]]:
        """(`:line`, text) of every line of a .jsonl file that is not blank."""
        for number, raw in enumerate(_bytes(path).splitlines(), start=1):
            if not raw.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(_decoded(raw, path, number))
            except json.JSONDecodeError as error:
                raise DataError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
            text = row.get(self.text_field) if isinstance(row, dict) else None
            if not isinstance(text, str):
                has = (
                    f"its keys are {', '.join(map(repr, row)) or 'none'}"
                    if isinstance(row, dict)
                    else "it is no object"
                )
                raise DataError(f"{where}: no text under {self.text_field!r} ({has}); set data.corpus.text_field")
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise DataError(f"{where}: {self.text_field!r} holds half of a surrogate pair, which is no character")
            yield f":{number}", text

    def _split(self, name: str, text: str) -> Iterator[tuple[str, str]]:
        """The text whole, or cut in front of every line that `document_start` matches."""
        if self.document_start is None:
            yield name, text
            return
        starts = [match.start() for match in re.finditer(f"^(?:{self.document_start})", text, re.MULTILINE)]
        ends = [*starts, len(text)]
        for number, (start, end) in enumerate(zip([0, *starts], ends, strict=True)):
            yield f"{name}@{number}", text[start:end]

    def _cut(self, name: str, text: str) -> Iterator[tuple[str, str]]:
        """The text as one document, or as several of about `document_characters`, each ending at the end of a line."""
        size = self.document_characters
        if size is None or len(text) <= size:
            if text.strip():
                yield name, text
            return
        start, number = 0, 0
        while start < len(text):
            end = text.find("\n", start + size - 1) + 1 or len(text)
            if text[start:end].strip():
                yield f"{name}#{number}", text[start:end]
                number += 1
            start = end

    def fingerprint(self, digest: Digest = file_digest) -> str:
        parts = ["text", self.text_field, str(self.document_characters), str(self.document_start)]
        for field in ("path", "validation_path"):
            parts.append(field)
            for name, path in self._files(field):
                parts += [name, digest(path)]
        return digest_of(parts)


def _kind(path: Path) -> str | None:
    """The suffix that says how a file is read, `.gz` aside; None where it cannot be."""
    suffixes = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in _READABLE if suffixes.endswith(suffix)), None)


def _belongs(path: Path, root: Path) -> bool:
    return not is_hidden(path, root) and _kind(path) is not None and path.is_file()


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.name.lower().endswith(".gz") else raw
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path}: ends in .gz but is not a complete gzip file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _decoded(raw: bytes, path: Path, line: int = 1) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line += raw[: error.start].count(b"\n")
        wrong = f"byte 0x{raw[error.start]:02x}"
        raise DataError(f"{path}, line {line}: not UTF-8 ({wrong}); convert it, as with `iconv -t UTF-8`") from None
