"""The running interpreter's own standard library, as a corpus of code."""

from __future__ import annotations

import dataclasses
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from jaxgpt.data.corpora.base import CorpusConfig, Digest, Document, digest_of, file_digest
from jaxgpt.errors import DataError
from jaxgpt.registry import register

# Other people's packages, tests (some deliberately not UTF-8), and what was generated when the interpreter was built.
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_GENERATED = ("config-", "_sysconfigdata")


def _root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


@register("stdlib")
@dataclasses.dataclass(frozen=True)
class StdlibConfig(CorpusConfig):
    """Python's standard library: code, about 12 MB, one document per module.

    The text differs between Python versions: compare runs only where the corpus fingerprint, kept with every dataset,
    is the same.
    """

    def _files(self) -> list[tuple[str, Path]]:
        """(name, file) of every module, in order of name."""
        root = _root()
        pairs = []
        for folder, below, names in os.walk(root):
            # Pruned while walking: site-packages alone can hold a hundred times as many files.
            below[:] = [name for name in below if name not in _SKIPPED_FOLDERS and not name.startswith(_GENERATED)]
            for name in names:
                path = Path(folder, name)
                if name.endswith(".py") and not name.startswith(_GENERATED) and path.is_file():
                    pairs.append((path.relative_to(root).as_posix(), path))
        if not pairs:
            raise DataError(f"data.corpus: no Python source lies below {root}; use another corpus")
        return sorted(pairs)

    def documents(self) -> Iterator[Document]:
        for name, path in self._files():
            try:
                text = path.read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: cannot be read as UTF-8 ({error}); use another corpus") from None
            if text.strip():
                yield Document(name, text)

    def fingerprint(self, digest: Digest = file_digest) -> str:
        return digest_of(["stdlib", *(part for name, path in self._files() for part in (name, digest(path)))])
