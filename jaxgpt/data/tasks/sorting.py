"""Sorting."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, require
from jaxgpt.registry import register


@register("sorting")
@dataclasses.dataclass(frozen=True)
class SortingConfig(TaskConfig):
    """Numbers in ascending order: `7 3 3 9 > 3 3 7 9` (Kazemnejad et al. 2023, arXiv:2305.19466, section 3).

    Length: numbers to sort, each one symbol, equal ones allowed.
    """

    numbers: int = 32  # different ones

    def __post_init__(self) -> None:
        require(self.numbers >= 2, f"numbers: must be at least 2, got {self.numbers}")

    def symbols(self) -> tuple[str, ...]:
        return (*map(str, range(self.numbers)), ">")

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        drawn = rng.integers(0, self.numbers, size=length).tolist()
        return [*drawn, self.numbers], sorted(drawn)
