"""What a synthetic task is: symbols, and examples made up at random, each a prompt with the answer to it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxgpt.registry import slot

Example = tuple[Sequence[int], ...]
"""(prompt, answer), or several in turn: (prompt, answer, prompt, answer, ...). Numbers into the task's symbols."""


@slot("task", package="jaxgpt.data.tasks")
@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """A task whose examples have a length; a model is trained on short ones and tried on long ones."""

    def symbols(self) -> tuple[str, ...]:
        """The vocabulary: texts without spaces, all different."""
        raise TypeError(f"{type(self).__qualname__} must define symbols()")

    def sample(self, rng: np.random.Generator, length: int) -> Example:
        """One example, drawn from `rng` alone. How many symbols its parts have follows from `length` (at least 1), and
        a longer example never has fewer."""
        raise TypeError(f"{type(self).__qualname__} must define sample()")

    def longest(self) -> int | None:
        """The greatest length there are symbols for; None where any length will do."""
        return None


@functools.lru_cache(maxsize=1024)
def example_tokens(task: TaskConfig, length: int) -> int:
    """How many symbols an example of this length has, prompt and answer together."""
    return sum(map(len, task.sample(np.random.default_rng(0), length)))


def letters(count: int) -> tuple[str, ...]:
    """`count` symbols without a meaning: a, b, ..., z, then t26, t27, ..."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return tuple(alphabet[i] if i < len(alphabet) else f"t{i}" for i in range(count))


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds: for `__post_init__` of a task."""
    if not condition:
        raise ValueError(message)
