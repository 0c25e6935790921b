"""Tokens that are there already: shards of another pipeline, read in place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from jaxgpt.config import content_hash
from jaxgpt.data.cache import FileDigests, cache_directory, cached
from jaxgpt.data.corpora.base import digest_of, is_hidden, listed
from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.shards import SUFFIXES, Shards, open_shard
from jaxgpt.data.sources.text import TextDataset
from jaxgpt.data.tokenizers.base import Tokenizer, TokenizerConfig
from jaxgpt.data.tokens import TokenSplit
from jaxgpt.errors import ConfigError, DataError
from jaxgpt.registry import kind_of, register

_FORMAT = 1
_AT_ONCE = 2**24  # tokens


@register("tokens")
@dataclasses.dataclass(frozen=True)
class TokensDataConfig(DataConfig):
    """Files of tokens, `.npy` or `.bin` (raw, or as llm.c writes them), and the tokenizer that made them. Every
    separator token begins a document.

    The files are not copied; the first time they are read once, to find the documents and to check the tokens.
    """

    protocols: ClassVar[tuple[str, ...]] = ("fixed_target", "non_overlapping", "sliding", "by_position")
    baseline: ClassVar[bool] = True

    path: str | tuple[str, ...]  # a file or folder, or a list of them, in this order; by name within a folder
    tokenizer: TokenizerConfig
    validation_path: str | tuple[str, ...] | None = None  # None: the last documents of `path`
    validation_fraction: float = 0.1  # of the documents, where there is no validation_path
    dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] = "uint16"  # of .bin files without a header
    sequence_length: int = 128  # type: ignore[override]  # tokens of one training sequence
    packing: Literal["windows", "documents"] = "windows"  # across documents, or keeping them apart

    def __post_init__(self) -> None:
        if not self.path or not all(listed(self.path)):
            raise ValueError("path: must name at least one file or folder")
        if self.sequence_length < 1 or not 0 < self.validation_fraction < 1:
            raise ValueError("sequence_length: must be at least 1, and validation_fraction lie between 0 and 1")

    def known_vocab_size(self) -> int | None:
        return self.tokenizer.known_vocab_size()

    def describe(self) -> dict[str, object]:
        return {
            "corpus": ", ".join(Path(path).name for path in listed(self.path)),
            "tokenizer": kind_of(self.tokenizer),
        }

    def prepare(self, cache_dir: Path | None = None) -> TextDataset:
        directory = cache_directory(cache_dir) / "data"
        digests = FileDigests(directory)
        tokenizer = self.tokenizer.train(_no_texts(self.tokenizer))
        key, parts = [], []
        held = _files("validation_path", self.validation_path)
        others = {file.resolve() for file in held}
        trained = [file for file in _files("path", self.path) if file.resolve() not in others]
        if not trained:
            raise DataError("data.path: all its files are those of data.validation_path; name others to train on")
        for files in (trained, held):
            digest = digest_of([digests(file) for file in files])
            about = {"format": _FORMAT, "files": digest, "dtype": self.dtype, "separator": tokenizer.separator}
            if files:
                shards = [open_shard(file, self.dtype) for file in files]
                name = content_hash({**about, "vocabulary": tokenizer.vocab_size}, 16)
                build = _scan(files, shards, tokenizer)
                entry = cached(directory, f"tokens-{name}", build, digests)
                parts.append((Shards(shards), np.fromfile(entry / "offsets", "<i8")))
            key.append(about)
        digests.save()
        train, validation = self._split(parts)
        fraction = self.validation_fraction if self.validation_path is None else None
        return TextDataset(
            tokenizer=tokenizer,
            fingerprint=content_hash({"tokens": key, "tokenizer": tokenizer.fingerprint, "split": fraction}, 16),
            sequence_length=self.sequence_length,
            packing=self.packing,
            train=train,
            validation=validation,
            corpus_fingerprint=content_hash(key, 16),
            weights={},
        )

    def _split(self, parts: Sequence[tuple[Shards, np.ndarray]]) -> tuple[TokenSplit, TokenSplit]:
        """Training and validation documents."""
        if len(parts) == 2:
            train, validation = (_whole(*part) for part in parts)
            return dataclasses.replace(train, name="train"), dataclasses.replace(validation, name="validation")
        everything = _whole(*parts[0])
        count = everything.num_documents
        held = max(round(count * self.validation_fraction), 1)
        if held >= count:
            raise DataError(
                f"data.path: {count} document(s), but one for training and one for validation are needed; name files "
                "for validation as data.validation_path"
            )
        return _between(everything, 0, count - held, "train"), _between(everything, count - held, count, "validation")


class _Numbers(Sequence[str]):
    """The documents' numbers as names: there may be too many to keep them."""

    def __init__(self, numbers: range):
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index):
        found = self._numbers[index]
        return _Numbers(found) if isinstance(found, range) else str(found)


def _whole(shards: Shards, offsets: np.ndarray) -> TokenSplit:
    return TokenSplit("all", shards, offsets, _Numbers(range(len(offsets) - 1)))


def _between(split: TokenSplit, first: int, end: int, name: str) -> TokenSplit:
    """Documents `first` to `end` of a split, in place."""
    assert isinstance(split.tokens, Shards)
    begin, stop = int(split.offsets[first]), int(split.offsets[end])
    offsets = split.offsets[first : end + 1] - begin
    return TokenSplit(name, split.tokens.part(begin, stop), offsets, split.names[first:end])


def _no_texts(tokenizer: TokenizerConfig) -> Iterator[str]:
    """Texts for a tokenizer that needs none: one that would learn from text cannot have made the tokens."""
    raise ConfigError(
        f"data.tokenizer: {kind_of(tokenizer)} learns from text, and here are tokens only; use `pretrained` (the "
        "tokenizer.json that made them) or `numbers` (the size of the vocabulary)"
    )
    yield ""


def _files(field: str, given: str | tuple[str, ...] | None) -> list[Path]:
    """The files of a path or several, in order. Raises DataError where there are none."""
    found: list[Path] = []
    for text in listed(given):
        path = Path(text).expanduser()
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and not is_hidden(file, path))
        if not inside or not inside[0].exists() or inside[0].suffix not in SUFFIXES:
            raise DataError(f"data.{field}: {text} is no file or folder with files that end in {' or '.join(SUFFIXES)}")
        found += inside
    return found


def _scan(files: Sequence[Path], shards: Sequence[np.ndarray], tokenizer: Tokenizer):
    """What writes `offsets`: where each document begins, and where the last one ends."""

    def build(folder: Path) -> None:
        starts, at = [np.zeros(1, np.int64)], 0
        for path, shard in zip(files, shards, strict=True):
            for first in range(0, len(shard), _AT_ONCE):
                tokens = np.asarray(shard[first : first + _AT_ONCE])
                low, high = int(tokens.min()), int(tokens.max())
                if low < 0 or high >= tokenizer.vocab_size:
                    raise DataError(
                        f"{path}: holds token {high if high >= tokenizer.vocab_size else low}, and the tokenizer has "
                        f"{tokenizer.vocab_size}; give the one that made them as data.tokenizer, or another data.dtype"
                    )
                starts.append(np.flatnonzero(tokens == tokenizer.separator) + at)
                at += len(tokens)
        begins = np.unique(np.concatenate(starts))
        np.append(begins, at).astype("<i8").tofile(folder / "offsets")

    return build
