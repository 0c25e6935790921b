"""Adding two numbers."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, require
from jaxgpt.registry import register

_PLUS, _EQUALS, _HINT = 10, 11, 12


@register("addition")
@dataclasses.dataclass(frozen=True)
class AdditionConfig(TaskConfig):
    """The sum of two numbers, digit by digit: `2 7 + 1 5 = 0 4 2`.

    Length: digits of each number; the sum has one more, so zeros may lead. `reversed` writes all three numbers with the
    lowest digit first, so that a carry comes before it is needed (Lee et al. 2023, arXiv:2307.03381). With `hints` > 0
    every digit has an index before it, equal for equal places: `h3 2 h4 7 + h3 1 h4 5 = h2 0 h3 4 h4 2`; the indices
    are consecutive and begin at random among that many, so that training on short numbers sees all of them (Zhou et al.
    2023, arXiv:2310.16028).
    """

    reversed: bool = False
    hints: int = 0  # index symbols; at least one more than the digits of the longest numbers

    def __post_init__(self) -> None:
        require(self.hints == 0 or self.hints >= 2, f"hints: must be 0 or at least 2, got {self.hints}")

    def symbols(self) -> tuple[str, ...]:
        return (*"0123456789", "+", "=", *(f"h{i}" for i in range(self.hints)))

    def longest(self) -> int | None:
        return self.hints - 1 if self.hints else None

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        a, b = rng.integers(0, 10, size=(2, length)).tolist()  # highest digit first
        total, carry = [], 0
        for x, y in zip(a[::-1], b[::-1], strict=True):
            carry, digit = divmod(x + y + carry, 10)
            total.append(digit)
        total = [carry, *total[::-1]]
        start = int(rng.integers(0, self.hints - length)) if self.hints else 0
        a, b, total = (self._written(digits, start + length + 1 - len(digits)) for digits in (a, b, total))
        return [*a, _PLUS, *b, _EQUALS], total

    def _written(self, digits: list[int], first: int) -> list[int]:
        """Digits, with the hints from `first` on before them, in the order in which they are written."""
        pairs = [[_HINT + first + i, digit] if self.hints else [digit] for i, digit in enumerate(digits)]
        return [symbol for pair in (pairs[::-1] if self.reversed else pairs) for symbol in pair]
