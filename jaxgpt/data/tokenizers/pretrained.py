"""Tokenizers of published models, in the format of the `tokenizers` library (extra `hf`)."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxgpt.config import content_hash
from jaxgpt.data.tokenizers.base import Tokenizer, TokenizerConfig, require_utf8
from jaxgpt.errors import ConfigError, DataError, from_extra
from jaxgpt.registry import register

FILE = "tokenizer.json"
SAVED = "pretrained.json"  # theirs, beside our own tokenizer.json
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
SPACE = "▁"


@register("pretrained")
@dataclasses.dataclass(frozen=True)
class PretrainedConfig(TokenizerConfig):
    """The tokenizer of a published model, from its `tokenizer.json` (GPT-2, Llama and most others). Nothing is learned.

    path: that file, or the folder it is in.
    separator: the token that stands between documents; None: the first of the usual ones that it has.
    """

    any_text: ClassVar[bool] = False  # some have no way to spell what they do not know

    path: str = ""
    separator: str | None = None

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path: give the tokenizer.json of a published model, or the folder it is in")

    def content(self) -> str:
        return content_hash(read_text(Path(self.path).expanduser()), 16)

    def train(self, texts: Iterable[str]) -> Tokenizer:
        return PretrainedTokenizer(read_text(Path(self.path).expanduser()), self.separator)

    @classmethod
    def restore(cls, pieces: Sequence[str], directory: Path) -> Tokenizer:
        content = json.loads(read_text(directory / SAVED))
        return PretrainedTokenizer(json.dumps(content["theirs"]), content["separator"])


def read_text(path: Path) -> str:
    """The content of a tokenizer.json. Raises DataError where there is none."""
    path = path / FILE if path.is_dir() else path
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: no tokenizer can be read here ({error.strerror})") from None


class PretrainedTokenizer(Tokenizer):
    """Ids, pieces and rules are the published ones; none of the layout of our own tokenizers holds."""

    kind = "pretrained"

    def __init__(self, text: str, separator: str | None = None, usual: int | None = None):
        """separator: the token's text; without it the token numbered `usual`, or the first usual one there is."""
        library = from_extra("tokenizers", "hf", "data.tokenizer: pretrained needs")
        try:
            self._library: Any = library.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"tokenizer.json: is not one of the tokenizers library ({error})") from None
        self._library.no_truncation()  # such settings are for a model's inputs: texts here are whole
        self._library.no_padding()
        self._text = text
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        names = [""] * (1 + max(vocabulary.values()))
        for name, number in vocabulary.items():
            names[number] = name
        super().__init__(names)
        self._special = {number for number, token in self._library.get_added_tokens_decoder().items() if token.special}
        self._separator = self._find(separator, vocabulary, usual)

    @staticmethod
    def _find(separator: str | None, vocabulary: dict[str, int], usual: int | None) -> int:
        if separator is None and usual is not None and usual in vocabulary.values():
            return usual
        if separator is None:
            separator = next((name for name in ENDS if name in vocabulary), None)
            if separator is None:
                raise ConfigError("data.tokenizer.separator: none of the usual ones is in this vocabulary; name one")
        if separator not in vocabulary:
            raise ConfigError(f"data.tokenizer.separator: {separator!r} is not in this vocabulary")
        return vocabulary[separator]

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @property
    def separator(self) -> int:
        return self._separator

    @property
    def ends(self) -> tuple[int, ...]:
        usual = (number for number in sorted(self._special) if self.pieces[number] in ENDS)
        return tuple(dict.fromkeys([self._separator, *usual]))

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        model = json.loads(self._text).get("model", {})
        by_byte = "ByteLevel" in json.dumps([json.loads(self._text).get(k) for k in ("pre_tokenizer", "decoder")])
        spelt = _byte_level() if by_byte and model.get("type") == "BPE" else None
        found = []
        for number, piece in enumerate(self.pieces):
            if number in self._special:
                found.append(b"")
            elif spelt is not None and all(character in spelt for character in piece):
                found.append(bytes(spelt[character] for character in piece))
            elif byte := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
                found.append(bytes([int(byte[1], 16)]))
            else:
                found.append(piece.replace(SPACE, " ").encode())
        return found

    @functools.cached_property
    def fingerprint(self) -> str:
        return content_hash({"kind": self.kind, "theirs": json.loads(self._text), "separator": self._separator}, 16)

    def encode(self, text: str) -> np.ndarray:
        require_utf8(text)
        return np.asarray(self._library.encode(text, add_special_tokens=False).ids, np.int32)

    def with_special(self, text: str) -> list[int]:
        """The tokens of a text with those that the tokenizer puts around it of its own accord."""
        return self._library.encode(text, add_special_tokens=True).ids

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        numbers = [int(number) for number in ids]
        wrong = next((number for number in numbers if not 0 <= number < self.vocab_size), None)
        if wrong is not None:
            raise ValueError(f"token {wrong} is outside the vocabulary of {self.vocab_size}")
        return self._library.decode(numbers, skip_special_tokens=True)

    def _write(self, directory: Path) -> None:
        content = {"theirs": json.loads(self._text), "separator": self.pieces[self._separator]}
        (directory / SAVED).write_text(json.dumps(content), encoding="utf-8")
        super()._write(directory)


@functools.cache
def _byte_level() -> dict[str, int]:
    """Character -> byte of byte-level vocabularies (GPT-2): printable bytes are themselves, others follow U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
