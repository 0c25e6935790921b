"""What a corpus is: documents in a fixed order, and a fingerprint of their content."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

from jaxgpt.errors import DataError
from jaxgpt.registry import slot

Digest = Callable[[Path], str]  # a file's SHA-256, in hexadecimal; `prepare` passes one that remembers unchanged files


@dataclasses.dataclass(frozen=True)
class Document:
    """One text that belongs together. Its name is unique in the corpus; the split hangs on it, unless the corpus has a
    split of its own and says which part the text is of."""

    name: str
    text: str
    part: Literal["train", "validation"] | None = None
    group: str = ""  # which corpus of several it is from


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def digest_of(parts: Iterable[str]) -> str:
    """SHA-256 of a sequence of texts, in hexadecimal; where one ends and the next begins counts."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", errors="surrogatepass")
        total.update(len(raw).to_bytes(8, "little") + raw)
    return total.hexdigest()


def listed(paths: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """A setting that is one path, several or none, as several."""
    if paths is None:
        return ()
    return (paths,) if isinstance(paths, str) else tuple(paths)


def is_hidden(path: Path, root: Path) -> bool:
    """Whether a file or a folder it is in, below `root`, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


@slot("corpus", package="jaxgpt.data.corpora")
@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """The text a model learns from."""

    more_documents: ClassVar[str] = "use a corpus of more documents"  # the way out when there are too few

    def documents(self) -> Iterator[Document]:
        """Every document, always in the same order; none is empty. Raises DataError naming file and line."""
        raise TypeError(f"{type(self).__qualname__} must define documents()")

    def weights(self) -> dict[str, float]:
        """Group of documents -> its share of the training rows; empty where documents count by their size."""
        return {}

    def fingerprint(self, digest: Digest = file_digest) -> str:
        """Hexadecimal digest of all that `documents` gives. Called at every start: files are read by `digest` alone."""
        raise TypeError(f"{type(self).__qualname__} must define fingerprint()")
