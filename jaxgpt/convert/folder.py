"""What a checkpoint folder of transformers says besides its tensors: settings, tokenizer, a fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.convert.tensors import Tensors
from jaxgpt.data.tokenizers.pretrained import FILE, PretrainedTokenizer, read_text

CONFIG = "config.json"
SAMPLE = 1024  # numbers of every tensor that the fingerprint reads


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of transformers, or claims to."""
    return (folder / CONFIG).exists()


def read_json(path: Path) -> dict[str, Any]:
    """A mapping of settings. Raises ConversionError where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error.strerror}); give the folder of a checkpoint") from None
    except ValueError as error:
        raise ConversionError(f"{path}: is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ConversionError(f"{path}: must be a mapping of settings")
    return found


def read_settings(folder: Path) -> Settings:
    """The folder's `config.json`."""
    return Settings(read_json(folder / CONFIG), str(folder / CONFIG))


def fingerprint(folder: Path) -> str:
    """Hexadecimal digest of the settings, the names, shapes and types of all tensors and the first numbers of each: it
    tells checkpoints apart without reading them whole."""
    digest = hashlib.sha256(json.dumps(read_json(folder / CONFIG), sort_keys=True).encode())
    with Tensors(folder) as tensors:
        for name in sorted(tensors):
            digest.update(json.dumps([name, tensors.shape(name), str(tensors.dtype(name))]).encode())
            digest.update(np.ascontiguousarray(tensors[name].reshape(-1)[:SAMPLE]).tobytes())
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class FolderTokenizer:
    """The tokenizer of a folder. begin: tokens before every text. ends: tokens that end one."""

    tokenizer: PretrainedTokenizer
    begin: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def separator(self) -> str:
        """The token that stands between documents where they are read one after the other: what begins a text if
        anything does, else what ends one."""
        return self.tokenizer.pieces[self.begin[0] if self.begin else self.tokenizer.separator]


def has_tokenizer(folder: Path) -> bool:
    return (folder / FILE).exists()


def read_tokenizer(folder: Path) -> FolderTokenizer:
    """The folder's tokenizer. Raises DataError where it has none, UserError without the extra hf."""
    begin, ends = special_tokens(folder)
    tokenizer = PretrainedTokenizer(read_text(folder), _named_end(folder), ends[0] if ends else None)
    starts = (begin,) if begin is not None and tokenizer.with_special("a")[:1] == [begin] else ()
    return FolderTokenizer(tokenizer, starts, ends or (tokenizer.separator,))


def special_tokens(folder: Path) -> tuple[int | None, tuple[int, ...]]:
    """The token that begins a text and those that end one, from the settings of the model and of its generation."""
    begin, ends = None, []
    for name in (CONFIG, "generation_config.json"):
        settings = _optional(folder / name)
        begin = settings.get("bos_token_id") if begin is None else begin
        found = settings.get("eos_token_id")
        ends += found if isinstance(found, list) else [] if found is None else [found]
    return begin, tuple(dict.fromkeys(ends))


def _named_end(folder: Path) -> str | None:
    """The token that ends a text, as the tokenizer's own settings name it."""
    named = _optional(folder / "tokenizer_config.json").get("eos_token")
    return named.get("content") if isinstance(named, dict) else named


def _optional(path: Path) -> dict[str, Any]:
    """The settings of a file that may be missing."""
    try:
        return read_json(path)
    except ConversionError:
        return {}
