"""Parity."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig
from jaxgpt.registry import register


@register("parity")
@dataclasses.dataclass(frozen=True)
class ParityConfig(TaskConfig):
    """Whether the number of ones is even (0) or odd (1): `1 0 1 1 > 1`. Chance is a half.

    Length: bits. Transformers are not known to generalise here (Hahn 2020, arXiv:1906.06755; Anil et al. 2022,
    arXiv:2207.04901), and seeds differ much: report it, judge nothing by it.
    """

    def symbols(self) -> tuple[str, ...]:
        return ("0", "1", ">")

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        bits = rng.integers(0, 2, size=length).tolist()
        return [*bits, 2], [sum(bits) % 2]
