"""Induction heads."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, letters, require
from jaxgpt.registry import register


@register("induction")
@dataclasses.dataclass(frozen=True)
class InductionConfig(TaskConfig):
    """What followed the mark when it was seen before: `d a | b c a | b` (Fu et al. 2023, arXiv:2212.14052, section 3;
    after Olsson et al. 2022, arXiv:2209.11895).

    Length: random symbols, among which the mark is put at random. Chance is 1 / alphabet.
    """

    alphabet: int = 16

    def __post_init__(self) -> None:
        require(self.alphabet >= 2, f"alphabet: must be at least 2, got {self.alphabet}")

    def symbols(self) -> tuple[str, ...]:
        return ("|", *letters(self.alphabet))

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        drawn = rng.integers(1, self.alphabet + 1, size=length).tolist()
        at = int(rng.integers(0, length))
        return [*drawn[:at], 0, *drawn[at:], 0], [drawn[at]]
