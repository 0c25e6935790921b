"""Summing up."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, require
from jaxgpt.registry import register


@register("summation")
@dataclasses.dataclass(frozen=True)
class SummationConfig(TaskConfig):
    """The sum of digits, modulo `modulus`: `7 4 9 > 0` (Kazemnejad et al. 2023, arXiv:2305.19466, section 3).

    Length: numbers to sum. Chance is 1 / modulus; with 2 it is parity.
    """

    modulus: int = 10

    def __post_init__(self) -> None:
        require(self.modulus >= 2, f"modulus: must be at least 2, got {self.modulus}")

    def symbols(self) -> tuple[str, ...]:
        return (*map(str, range(self.modulus)), ">")

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        digits = rng.integers(0, self.modulus, size=length).tolist()
        return [*digits, self.modulus], [sum(digits) % self.modulus]
