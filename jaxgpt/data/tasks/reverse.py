"""Reversing."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, letters, require
from jaxgpt.registry import register


@register("reverse")
@dataclasses.dataclass(frozen=True)
class ReverseConfig(TaskConfig):
    """Say backwards what was said: `d a b > b a d` (Kazemnejad et al. 2023, arXiv:2305.19466, section 3).

    Length: symbols to reverse. The first symbols of the answer are near, the last ones far.
    """

    alphabet: int = 16

    def __post_init__(self) -> None:
        require(self.alphabet >= 2, f"alphabet: must be at least 2, got {self.alphabet}")

    def symbols(self) -> tuple[str, ...]:
        return (">", *letters(self.alphabet))

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        said = rng.integers(1, self.alphabet + 1, size=length).tolist()
        return [*said, 0], said[::-1]
