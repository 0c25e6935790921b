"""Multi-query associative recall."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.tasks.base import Example, TaskConfig, require
from jaxgpt.registry import register


@register("mqar")
@dataclasses.dataclass(frozen=True)
class MqarConfig(TaskConfig):
    """Values of keys told before, each key asked once: `k3 v1 k7 v4 k3 v1 k7 v4`, in the loss the values asked for
    (Arora et al. 2023, arXiv:2312.04927, section 3.1).

    The number of pairs and the distance vary apart. Where `pairs` is null, the length counts pairs, and `gap` noise
    symbols lie between telling and asking; where it is a number, the length counts those noise symbols. Keys are all
    different, and asked in random order.
    """

    pairs: int | None = None  # null: as many as the length says
    gap: int = 0  # noise symbols between telling and asking, where the length counts pairs
    keys: int = 64  # different ones; no more pairs than these
    values: int = 16  # different ones; chance is 1 / values

    def __post_init__(self) -> None:
        require(
            self.keys >= 1 and self.values >= 2, f"keys: needs a key and two values, got {self.keys}, {self.values}"
        )
        require(self.gap >= 0, f"gap: must not be negative, got {self.gap}")
        require(self.pairs is None or self.gap == 0, "gap: is the length's to say where pairs is given")
        require(1 <= (self.pairs or 1) <= self.keys, f"pairs: must be from 1 to the {self.keys} keys, got {self.pairs}")

    def symbols(self) -> tuple[str, ...]:
        return (".", *(f"k{i}" for i in range(self.keys)), *(f"v{i}" for i in range(self.values)))

    def longest(self) -> int | None:
        return self.keys if self.pairs is None else None

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        pairs, gap = (length, self.gap) if self.pairs is None else (self.pairs, length)
        keys = 1 + rng.permutation(self.keys)[:pairs]
        values = 1 + self.keys + rng.integers(0, self.values, size=pairs)
        told = np.stack([keys, values], axis=1).reshape(-1).tolist()
        asked = rng.permutation(pairs).tolist()
        parts: list[list[int]] = []
        for number in asked:
            parts += [[int(keys[number])], [int(values[number])]]
        parts[0] = [*told, *[0] * gap, *parts[0]]
        return tuple(parts)
