"""Selective copying."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, letters, require
from jaxgpt.registry import register


@register("selective_copy")
@dataclasses.dataclass(frozen=True)
class SelectiveCopyConfig(TaskConfig):
    """Say again what was said between blanks: `. d . . a b . > d a b` (Gu & Dao 2023, arXiv:2312.00752, section 3.1;
    after Jing et al. 2019, arXiv:1706.02761).

    Length: symbols and blanks together; `count` of them, at random places, are symbols (all where there are fewer).
    """

    alphabet: int = 16
    count: int = 8

    def __post_init__(self) -> None:
        require(self.alphabet >= 2, f"alphabet: must be at least 2, got {self.alphabet}")
        require(self.count >= 1, f"count: must be at least 1, got {self.count}")

    def symbols(self) -> tuple[str, ...]:
        return (">", ".", *letters(self.alphabet))

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        count = min(self.count, length)
        said = rng.integers(2, self.alphabet + 2, size=count)
        row = np.ones(length, np.int64)
        row[np.sort(rng.permutation(length)[:count])] = said
        return [*row.tolist(), 0], said.tolist()
