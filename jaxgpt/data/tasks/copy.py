"""Copying."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, letters, require
from jaxgpt.registry import register


@register("copy")
@dataclasses.dataclass(frozen=True)
class CopyConfig(TaskConfig):
    """Say again what was said: `d a b > d a b` (Kazemnejad et al. 2023, arXiv:2305.19466, section 3).

    Length: symbols to copy. Random symbols cannot be copied by looking for the last symbol's earlier place, where a
    symbol occurs more than once; `repeated` is one symbol over and over, so that only their number matters.
    """

    alphabet: int = 16
    tokens: Literal["random", "repeated"] = "random"

    def __post_init__(self) -> None:
        require(self.alphabet >= 2, f"alphabet: must be at least 2, got {self.alphabet}")

    def symbols(self) -> tuple[str, ...]:
        return (">", *letters(self.alphabet))

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        drawn = rng.integers(1, self.alphabet + 1, size=length if self.tokens == "random" else 1)
        said = np.broadcast_to(drawn, length).tolist()
        return [*said, 0], said
