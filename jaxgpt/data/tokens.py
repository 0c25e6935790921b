"""Tokens of many documents in one memory-mapped file: written once, read in place."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxgpt.data.corpora.base import Document
from jaxgpt.data.shards import Tokens
from jaxgpt.data.tokenizers.base import Tokenizer
from jaxgpt.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSplit:
    """The tokens of one part of a corpus: every document starts with the separator, one follows the other."""

    name: str  # train or validation
    tokens: Tokens  # [tokens] of unsigned integers, memory-mapped and read only
    offsets: np.ndarray  # int64 [documents + 1]: document i is tokens[offsets[i]:offsets[i + 1]]
    names: Sequence[str]  # of the documents
    groups: tuple[tuple[str, int], ...] = ()  # name and first document of each corpus, where there are several

    @property
    def num_tokens(self) -> int:
        """Tokens, separators included."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [documents]: tokens of each document, separator included."""
        return np.diff(self.offsets)

    def group(self, name: str) -> TokenSplit:
        """The documents of one corpus of several."""
        firsts = [first for _, first in self.groups] + [self.num_documents]
        at = [group for group, _ in self.groups].index(name)
        first, end = firsts[at], firsts[at + 1]
        begin, stop = int(self.offsets[first]), int(self.offsets[end])
        offsets = self.offsets[first : end + 1] - begin
        return TokenSplit(f"{self.name} part {name}", self.tokens[begin:stop], offsets, self.names[first:end])

    def document(self, number: int) -> np.ndarray:
        """The tokens of one document, separator first; a view, not a copy. Raises IndexError beyond the last one."""
        if not 0 <= number < self.num_documents:
            raise IndexError(f"{self.name} has documents 0 to {self.num_documents - 1}, not {number}")
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]


def write_split(directory: Path, name: str, documents: Iterable[Document], tokenizer: Tokenizer) -> str:
    """Write `name.tokens`, `name.offsets` and `name.json` into `directory`; returns a digest of what was written."""
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
    separator = np.array([tokenizer.separator], dtype).tobytes()
    content = hashlib.sha256(dtype.str.encode())
    names, offsets, groups = [], [0], []
    with (directory / f"{name}.tokens").open("wb") as file:
        for document in documents:
            raw = separator + tokenizer.encode(document.text).astype(dtype).tobytes()
            file.write(raw)
            content.update(raw)
            if document.group and (not groups or groups[-1][0] != document.group):
                groups.append([document.group, len(names)])
            names.append(document.name)
            offsets.append(offsets[-1] + len(raw) // dtype.itemsize)
    ends = np.array(offsets, "<i8").tobytes()
    content.update(ends)
    (directory / f"{name}.offsets").write_bytes(ends)
    about = {"dtype": dtype.str, "names": names, **({"groups": groups} if groups else {})}
    (directory / f"{name}.json").write_text(json.dumps(about), encoding="ascii")
    return content.hexdigest()


def read_split(directory: Path, name: str) -> TokenSplit:
    """What `write_split` wrote, its tokens memory-mapped."""
    about = json.loads((directory / f"{name}.json").read_bytes())
    # The plain array over the mapped file indexes faster.
    tokens = np.asarray(np.memmap(directory / f"{name}.tokens", np.dtype(about["dtype"]), mode="r"))
    offsets = np.fromfile(directory / f"{name}.offsets", "<i8")
    groups = tuple((group, first) for group, first in about.get("groups", ()))
    return TokenSplit(name, tokens, offsets, tuple(about["names"]), groups)


def split_of(documents: Sequence[np.ndarray], name: str = "validation") -> TokenSplit:
    """A split in memory, from the tokens of its documents (each separator first): for tests and synthetic data."""
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    tokens = np.concatenate([np.asarray(document) for document in documents])
    dtype = np.uint16 if tokens.max(initial=0) < 2**16 else np.uint32
    return TokenSplit(name, tokens.astype(dtype), offsets, tuple(str(i) for i in range(len(documents))))


def require_document_lengths(split: TokenSplit, needed_tokens: int, minimum_documents: int, purpose: str) -> None:
    """Raise DataError unless `minimum_documents` documents of `split` have `needed_tokens` tokens or more."""
    enough = int((split.lengths >= needed_tokens).sum())
    if enough < minimum_documents:
        longest = int(split.lengths.max(initial=0))
        raise DataError(
            f"{split.name} has {enough} documents of at least {needed_tokens} tokens (the longest has {longest}), "
            f"needs {minimum_documents} for {purpose}; use longer documents or a smaller data.sequence_length"
        )
