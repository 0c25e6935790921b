"""A passkey in filler."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, require
from jaxgpt.registry import register

_TEXT = "the grass is green . the sky is blue . the sun is yellow . here we go . there and back again ."
_FILLER = _TEXT.split()
_WORDS = tuple(dict.fromkeys(_FILLER))
_KEY = 10


@register("passkey")
@dataclasses.dataclass(frozen=True)
class PasskeyConfig(TaskConfig):
    """A number hidden in sentences that say nothing: `the grass is <key> 4 7 1 green . the sky <key> 4 7 1` (Mohtashami
    & Jaggi 2023, arXiv:2305.16300, section 4.2).

    Length: words of filler; the key is put at random among them. `jaxgpt.data.sources.retrieval` hides keys in text.
    """

    digits: int = 4

    def __post_init__(self) -> None:
        require(self.digits >= 1, f"digits: must be at least 1, got {self.digits}")

    def symbols(self) -> tuple[str, ...]:
        return (*"0123456789", "<key>", *_WORDS)

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        key = rng.integers(0, 10, size=self.digits).tolist()
        first = int(rng.integers(0, len(_FILLER)))
        filler = [_KEY + 1 + _WORDS.index(_FILLER[(first + i) % len(_FILLER)]) for i in range(length)]
        at = int(rng.integers(0, length + 1))
        return [*filler[:at], _KEY, *key, *filler[at:], _KEY], key
