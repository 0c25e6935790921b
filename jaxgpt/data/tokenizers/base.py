"""What a tokenizer is, and what all of them share: the layout of the vocabulary, saving, and the exact way back.

Token 0 is the separator that starts every document, tokens 1 to 256 are the bytes 0 to 255, and from 257 on come the
pieces a tokenizer learned, each a string. A text that no piece matches is spelt in bytes, so any text in UTF-8 comes
back exactly. Decoding joins the bytes that tokens stand for; it never asks a library.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxgpt import registry
from jaxgpt.errors import DataError
from jaxgpt.registry import slot

SEPARATOR = 0
FIRST_BYTE = 1
FIRST_PIECE = 257
_FORMAT = 1
_REMEMBERED_WORDS = 500_000  # words whose tokens are kept between calls,
_REMEMBERED_LENGTH = 32  # unless they are longer than this: in Chinese a word may be a whole line


@slot("tokenizer", package="jaxgpt.data.tokenizers")
@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes tokens."""

    any_text: ClassVar[bool] = True  # whether every text in UTF-8 can be encoded, spelt in bytes if need be

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Learn a tokenizer; one pass over `texts`. Raises DataError where they cannot fill the vocabulary."""
        raise TypeError(f"{type(self).__qualname__} must define train()")

    def known_vocab_size(self) -> int | None:
        """The size of the vocabulary where it is known before any text is seen, else None."""
        return None

    @classmethod
    def restore(cls, pieces: Sequence[str], directory: Path) -> Tokenizer:
        """The tokenizer that `Tokenizer.save` wrote into `directory`; `pieces` are read already."""
        raise TypeError(f"{cls.__qualname__} must define restore()")

    def content(self) -> str:
        """A digest of the files it is made of, if any; a part of what the cache is keyed by."""
        return ""

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Versions of the libraries whose training decides the pieces; a part of what the cache is keyed by."""
        return {}


class Tokenizer:
    """Text <-> token ids, exact for every text in UTF-8.

    Subclasses give the kind, cut text into words (`words`, whose matches together are the whole text) and spell words.
    """

    kind: str = ""
    words: re.Pattern[str] = re.compile(r"[^ \n]+| +|\n")

    def __init__(self, pieces: Sequence[str]):
        self.pieces = tuple(pieces)
        self._ids = {piece: number for number, piece in enumerate(self.pieces, start=FIRST_PIECE)}
        self._remembered: dict[str, Sequence[int]] = {}

    @property
    def vocab_size(self) -> int:
        """Separator, bytes and pieces together."""
        return FIRST_PIECE + len(self.pieces)

    @property
    def separator(self) -> int:
        """The token that starts every document; it stands for no text."""
        return SEPARATOR

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text, the separator first."""
        return (self.separator,)

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        return [b"", *(bytes([byte]) for byte in range(256)), *(piece.encode() for piece in self.pieces)]

    @functools.cached_property
    def byte_lengths(self) -> np.ndarray:
        """int64 [vocab_size]: how many bytes of UTF-8 each token stands for; 0 for the separator."""
        return np.array([len(raw) for raw in self._bytes], np.int64)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the kind and the pieces in order: what decides which token means what."""
        text = json.dumps([self.kind, self.pieces], ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def encode(self, text: str) -> np.ndarray:
        """int32 [tokens] of a text, without a separator. Raises DataError for half a surrogate pair."""
        require_utf8(text)
        words = self.words.findall(text)
        known = self._remembered
        unknown = list(dict.fromkeys(word for word in words if word not in known))
        known.update(zip(unknown, self._spell(unknown), strict=True))
        tokens = np.fromiter(itertools.chain.from_iterable(map(known.__getitem__, words)), np.int32)
        for word in unknown:
            if len(word) > _REMEMBERED_LENGTH:
                del known[word]
        if len(known) > _REMEMBERED_WORDS:
            known.clear()
        return tokens

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of tokens; separators vanish, and bytes that are no UTF-8 (a character cut in two) become U+FFFD.

        Raises ValueError for an id outside the vocabulary.
        """
        numbers = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64).tolist()
        table, size = self._bytes, self.vocab_size
        if numbers and not (min(numbers) >= 0 and max(numbers) < size):
            wrong = next(number for number in numbers if not 0 <= number < size)
            raise ValueError(f"token {wrong} is outside the vocabulary of {size}")
        return b"".join(table[number] for number in numbers).decode("utf-8", errors="replace")

    def save(self, directory: str | Path) -> None:
        """Write everything `load_tokenizer` needs into `directory`.

        A new folder appears complete or not at all, whenever the process is killed.
        """
        directory = Path(directory)
        new = not directory.exists()
        target = directory.with_name(f"{directory.name}.{os.getpid()}") if new else directory
        target.mkdir(parents=True, exist_ok=True)
        self._write(target)
        if new:
            target.replace(directory)

    def _write(self, directory: Path) -> None:
        content = {"format": _FORMAT, "kind": self.kind, "fingerprint": self.fingerprint, "pieces": self.pieces}
        (directory / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=True), encoding="ascii")

    def _spell(self, words: list[str]) -> Iterable[Sequence[int]]:
        """The tokens of every word."""
        raise TypeError(f"{type(self).__qualname__} must define _spell()")


def require_utf8(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text holds half of a surrogate pair (U+{ord(text[error.start]):04X} at character {error.start}), "
            "which is no character and has no UTF-8; remove it"
        ) from None


def spell_bytes(text: str) -> list[int]:
    """A text spelt in byte tokens: what every tokenizer does with what it has no piece for."""
    return [byte + FIRST_BYTE for byte in text.encode("utf-8")]


def most_frequent(counts: dict[str, int], limit: int) -> list[str]:
    """The `limit` most frequent keys; equally frequent ones in order of their characters, so that ties are settled."""
    return sorted(counts, key=lambda piece: (-counts[piece], piece))[:limit]


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer saved in `directory`. Raises DataError where it is missing or damaged."""
    directory = Path(directory)
    path = directory / "tokenizer.json"
    try:
        content = json.loads(path.read_text(encoding="ascii"))
        kind, pieces, expected = content["kind"], content["pieces"], content["fingerprint"]
    except OSError as error:
        raise DataError(f"{path}: no tokenizer can be read here ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: the saved tokenizer is damaged") from None
    config_class = registry.lookup(TokenizerConfig, kind, str(path))
    tokenizer = config_class.restore(pieces, directory)
    if tokenizer.fingerprint != expected:
        raise DataError(f"{path}: the saved tokenizer is damaged (fingerprint {tokenizer.fingerprint}, not {expected})")
    return tokenizer


def require_same_tokenizer(expected_fingerprint: str, tokenizer: Tokenizer, where: str) -> None:
    """Raise DataError unless `tokenizer` is the one `where` (a checkpoint, a run folder) was made with."""
    if tokenizer.fingerprint != expected_fingerprint:
        raise DataError(
            f"{where} was made with the tokenizer {expected_fingerprint}, not with this {tokenizer.kind} tokenizer "
            f"{tokenizer.fingerprint} of {tokenizer.vocab_size} tokens; load the tokenizer saved beside it"
        )
