"""Several corpora, each with the share of the training batches that it shall have."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from jaxgpt.data.corpora.base import CorpusConfig, Digest, Document, digest_of, file_digest
from jaxgpt.registry import register

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclasses.dataclass(frozen=True)
class PartConfig:
    """One corpus of a mixture. weight: its share of the rows that are trained on, relative to the others'."""

    corpus: CorpusConfig
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight: must be positive, got {self.weight}")
        if isinstance(self.corpus, MixtureConfig):
            raise ValueError("corpus: a mixture of mixtures; name all corpora in one")


@register("mixture")
@dataclasses.dataclass(frozen=True)
class MixtureConfig(CorpusConfig):
    """Corpora by name, with weights: `parts: {news: {corpus: {type: text, path: news}, weight: 0.7}, ...}`.

    Every batch has rows of all of them in the proportion of the weights, whatever their sizes; a small corpus comes
    round more often. The tokenizer learns from all training text, and each corpus is split into training and
    validation documents by itself; validation text has the corpora in their natural sizes.
    """

    parts: Mapping[str, PartConfig]

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError("parts: name at least two corpora")
        for name in self.parts:
            if not _NAME.fullmatch(name):
                raise ValueError(f"parts: {name!r} must be letters, digits, _ and -")

    @property
    def _ordered(self) -> list[tuple[str, PartConfig]]:
        """The parts by name: in which order they were written down decides nothing."""
        return sorted(self.parts.items())

    def documents(self) -> Iterator[Document]:
        for name, part in self._ordered:
            for document in part.corpus.documents():
                yield dataclasses.replace(document, name=f"{name}/{document.name}", group=name)

    def fingerprint(self, digest: Digest = file_digest) -> str:
        parts = [item for name, part in self._ordered for item in (name, part.corpus.fingerprint(digest))]
        return digest_of(["mixture", *parts])

    def weights(self) -> dict[str, float]:
        total = math.fsum(part.weight for part in self.parts.values())
        return {name: part.weight / total for name, part in self._ordered}
