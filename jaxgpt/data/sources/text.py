"""Text: from a configuration to tokens on disk. Split by document, train the tokenizer, encode, keep."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from jaxgpt.config import added_later, content_hash, encode
from jaxgpt.data.cache import FileDigests, cache_directory, cached
from jaxgpt.data.corpora.base import CorpusConfig, Document
from jaxgpt.data.corpora.sotu import SotuConfig
from jaxgpt.data.dataset import DataConfig, Dataset
from jaxgpt.data.packing import Batch
from jaxgpt.data.pipeline import batches, validation_batches
from jaxgpt.data.tokenizers.base import TokenizerConfig, load_tokenizer
from jaxgpt.data.tokenizers.bpe import BpeConfig
from jaxgpt.data.tokens import TokenSplit, read_split, write_split
from jaxgpt.errors import DataError
from jaxgpt.registry import kind_of, register

if TYPE_CHECKING:
    import grain

_LOG = logging.getLogger(__name__)
_FORMAT = 1  # of what is kept; raise it when the same configuration gives other tokens


@register("text")
@dataclasses.dataclass(frozen=True)
class TextDataConfig(DataConfig):
    """A corpus, split by document into training and validation text, and the tokenizer that learns from the former."""

    protocols: ClassVar[tuple[str, ...]] = ("fixed_target", "non_overlapping", "sliding", "by_position")
    baseline: ClassVar[bool] = True

    corpus: CorpusConfig = SotuConfig()
    tokenizer: TokenizerConfig = BpeConfig()
    sequence_length: int = 128  # type: ignore[override]  # tokens of one training sequence
    packing: Literal["windows", "documents"] = "windows"  # across documents, or keeping them apart
    validation_fraction: float = 0.1  # share of the documents, where the corpus has no split of its own
    split_seed: int = 0
    tuning_fraction: float = added_later(0.0)  # above 0: the validation documents are left out of everything, and this
    # share of the training documents is held out in their place, to choose settings by

    def __post_init__(self) -> None:
        if self.sequence_length < 1:
            raise ValueError(f"sequence_length: must be at least 1, got {self.sequence_length}")
        if self.packing not in ("windows", "documents"):
            raise ValueError(f"packing: must be windows or documents, got {self.packing!r}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction: must lie between 0 and 1, got {self.validation_fraction}")
        if not 0 <= self.tuning_fraction < 1:
            raise ValueError(f"tuning_fraction: must be at least 0 and below 1, got {self.tuning_fraction}")

    def known_vocab_size(self) -> int | None:
        return self.tokenizer.known_vocab_size()

    def for_tuning(self, fraction: float) -> TextDataConfig:
        return dataclasses.replace(self, tuning_fraction=fraction)

    def describe(self) -> dict[str, object]:
        return {"corpus": kind_of(self.corpus), "tokenizer": kind_of(self.tokenizer)}

    def prepare(self, cache_dir: Path | None = None) -> TextDataset:
        directory = cache_directory(cache_dir) / "data"
        digests = FileDigests(directory)
        corpus_fingerprint = self.corpus.fingerprint(digests)
        key = {
            "format": _FORMAT,
            "corpus": corpus_fingerprint,
            "split": [
                self.validation_fraction,
                self.split_seed,
                *([self.tuning_fraction] if self.tuning_fraction else []),
            ],
            "tokenizer": encode(self.tokenizer),
            "versions": self.tokenizer.versions(),
        }
        if content := self.tokenizer.content():
            key["content"] = content
        entry = cached(
            directory, content_hash(key, 16), lambda folder: _build(self, corpus_fingerprint, folder), digests
        )
        digests.save()
        about = json.loads((entry / "dataset.json").read_bytes())
        weights = self.corpus.weights()
        fingerprint = about["fingerprint"]
        return TextDataset(
            tokenizer=load_tokenizer(entry / "tokenizer"),
            fingerprint=content_hash([fingerprint, weights], 16) if weights else fingerprint,
            sequence_length=self.sequence_length,
            packing=self.packing,
            train=read_split(entry, "train"),
            validation=read_split(entry, "validation"),
            corpus_fingerprint=corpus_fingerprint,
            weights=weights,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class TextDataset(Dataset):
    """A tokenizer and the tokens of both parts of a corpus."""

    train: TokenSplit
    validation: TokenSplit
    corpus_fingerprint: str  # of the text alone
    weights: Mapping[str, float]  # of a mixture's corpora, by name; else empty

    def batches(self, batch_size: int, seed: int, rows: np.ndarray | None = None) -> grain.DatasetIterator:
        shape = {"batch_size": batch_size, "sequence_length": self.sequence_length}
        return batches(self.train, **shape, seed=seed, packing=self.packing, weights=self.weights, only=rows)

    def validation_batches(self, batch_size: int, max_batches: int | None = None) -> Iterator[Batch]:
        """Windows spread over the validation text, however training rows are packed."""
        return validation_batches(self.validation, batch_size, self.sequence_length, max_batches)


def split_documents(names: Sequence[str], validation_fraction: float, seed: int) -> list[bool]:
    """For each document whether it is for validation.

    Documents are ranked by a hash of seed and name and the first share is taken, at least one and never all; so a
    corpus that grows keeps nearly all of its documents where they were. Raises ValueError for fewer than two.
    """
    if len(names) < 2:
        raise ValueError("fewer than two documents cannot be split")
    ranks = [hashlib.sha256(f"{seed}\n{name}".encode(errors="surrogatepass")).digest() for name in names]
    order = sorted(range(len(names)), key=ranks.__getitem__)
    count = min(max(round(len(names) * validation_fraction), 1), len(names) - 1)
    chosen = set(order[:count])
    return [number in chosen for number in range(len(names))]


def _held_out(config: TextDataConfig, documents: Sequence[Document]) -> list[bool | None]:
    """For each document, its text aside, whether it is for validation; None: for neither. Corpora of a mixture are
    split one by one."""
    groups = [list(group) for _, group in itertools.groupby(documents, key=lambda document: document.group)]
    return [held for group in groups for held in _held_out_of(config, group)]


def _held_out_of(config: TextDataConfig, documents: Sequence[Document]) -> list[bool | None]:
    """The same of one corpus."""
    of = f" {documents[0].group}" if documents and documents[0].group else ""
    if len(documents) < 2:
        raise DataError(
            f"data.corpus{of}: {len(documents)} document(s), but one for training and one for validation are needed; "
            f"{config.corpus.more_documents}"
        )
    names = [document.name for document in documents]
    if documents[0].part is None:
        held_out = split_documents(names, config.validation_fraction, config.split_seed)
    else:  # the corpus has a split of its own
        held_out = [document.part == "validation" for document in documents]
    if not config.tuning_fraction:
        return [*held_out]
    rest = [name for name, held in zip(names, held_out, strict=True) if not held]
    if len(rest) < 2:
        raise DataError(
            f"data.corpus{of}: {len(rest)} document(s) are left to tune on, but one for training and one for scoring "
            f"are needed; {config.corpus.more_documents}"
        )
    chosen = iter(split_documents(rest, config.tuning_fraction, config.split_seed))
    return [None if held else next(chosen) for held in held_out]


def _build(config: TextDataConfig, corpus_fingerprint: str, folder: Path) -> None:
    """Prepare from nothing. The text is read three times, a document at a time, rather than held in memory."""
    corpus = config.corpus
    documents = [dataclasses.replace(document, text="") for document in corpus.documents()]
    if not documents:
        raise DataError(
            "data.corpus: 0 document(s), but one for training and one for validation are needed; "
            f"{corpus.more_documents}"
        )
    held_out = _held_out(config, documents)
    _LOG.info("preparing %d documents, %d of them for validation", len(documents), held_out.count(True))

    def part(validation: bool) -> Iterator[Document]:
        pairs = zip(corpus.documents(), held_out, strict=True)
        return (document for document, held in pairs if held == validation)

    tokenizer = config.tokenizer.train(document.text for document in part(False))
    tokenizer.save(folder / "tokenizer")
    content = hashlib.sha256(tokenizer.fingerprint.encode())
    for name, validation in (("train", False), ("validation", True)):
        content.update(write_split(folder, name, part(validation), tokenizer).encode())
    about = {
        "fingerprint": content.hexdigest()[:16],
        "corpus": {**encode(corpus), "fingerprint": corpus_fingerprint},
        "tokenizer": {**encode(config.tokenizer), "fingerprint": tokenizer.fingerprint},
    }
    (folder / "dataset.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
