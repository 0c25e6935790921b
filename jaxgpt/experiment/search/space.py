"""What an experiment file says of a search for hyperparameters: the space, and how it is searched.

    def search():
        return Search({"train.learning_rate": Float(3e-4, 3e-2, log=True), "model.num_layers": Int(2, 6)})

A grid of a few learning rates is `Tuning`; a search is for spaces where a grid would be mostly waste.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, get_args

from jaxgpt.errors import ConfigError, nearest

Value = bool | int | float | str | None
Sampler = Literal["tpe", "random"]
SECTIONS = ("model", "train")
"""Where searched settings may lie. Those of `data` would change what the loss is of."""

TAKEN = ("train.steps", "train.validate_every", "train.validation_tokens")
"""Settings that a trial has by its nature."""


@dataclasses.dataclass(frozen=True)
class Float:
    """A number between two, both included; `log`: as likely between 0.001 and 0.01 as between 0.01 and 0.1."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        for value in (self.low, self.high):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"search: Float: expected finite numbers, got {value!r}")
        _check_bounds(self)

    def ends(self) -> tuple[float, ...]:
        return float(self.low), float(self.high)

    def describe(self) -> str:
        return f"{self.low:g} to {self.high:g}" + ", by its logarithm" * self.log

    def at_end(self, value: Value) -> bool:
        """Whether a value is within a fiftieth of the range from one of its ends."""
        assert isinstance(value, int | float)
        low, high, value = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return min(value - low, high - value) < 0.02 * (high - low)


@dataclasses.dataclass(frozen=True)
class Int:
    """A whole number between two, both included, in steps from the lower; `log` as for Float, without `step`."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        for value in (self.low, self.high, self.step):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"search: Int: expected whole numbers, got {value!r}")
        _check_bounds(self)
        if self.step < 1 or (self.high - self.low) % self.step or (self.log and self.step != 1):
            raise ConfigError(
                f"search: Int: step {self.step}: must lead from {self.low} to {self.high}, and be 1 with log"
            )

    def ends(self) -> tuple[int, ...]:
        return self.low, self.high

    def describe(self) -> str:
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.low} to {self.high}{steps}" + ", by its logarithm" * self.log

    def at_end(self, value: Value) -> bool:
        return value in (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values, which have no order: names of kinds, flags, numbers."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, tuple | list) or len(self.values) < 2:
            raise ConfigError(f"search: Choice: expected two or more values, got {self.values!r}")
        object.__setattr__(self, "values", tuple(self.values))
        for value in self.values:
            if not isinstance(value, Value) or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigError(f"search: Choice: expected texts, numbers, flags or None, got {value!r}")
        if len(set(map(repr, self.values))) < len(self.values):
            raise ConfigError(f"search: Choice: the same value twice in {self.values}")

    def ends(self) -> tuple[Value, ...]:
        return self.values

    def describe(self) -> str:
        return ", ".join(map(str, self.values))


Range = Float | Int | Choice


def _check_bounds(one: Float | Int) -> None:
    kind = type(one).__name__
    if not one.low < one.high:
        raise ConfigError(f"search: {kind}: low must be below high, got {one.low} and {one.high}")
    if one.log and one.low <= 0:
        raise ConfigError(f"search: {kind}: with log both ends must be positive, got {one.low}")


@dataclasses.dataclass(frozen=True)
class Median:
    """Ends trials early whose best validation loss so far is above the median, at the same step, of those that came to
    their end (after the median stopping rule of Golovin et al. 2017, "Google Vizier").

    startup: trials of a variant that must have come to their end before any is judged.
    warmup: share of a trial's steps before it is judged.
    every: share of its steps between validation losses.
    """

    startup: int = 5
    warmup: float = 0.3
    every: float = 0.1

    def __post_init__(self) -> None:
        if self.startup < 1 or not (0 <= self.warmup < 1 and 0 < self.every < 1):
            raise ConfigError("search: pruner: startup must be at least 1, warmup and every are shares below 1")


@dataclasses.dataclass(frozen=True)
class Search:
    """How settings of variants are chosen before the comparison, each variant by a search of its own. A trial is a run
    for part of the steps, scored at the training length on text that neither trains trials nor is in any evaluation.

    space: dotted path of a setting -> the values it may have; the same for all variants searched.
    trials: points tried for each variant, those that were pruned or diverged included.
    variants: those searched; all that are trained from the start where none is named.
    steps, fraction: as in `Tuning`: share of the variant's steps that a trial takes; share of the training documents
      that is held out for scoring.
    sampler: `tpe` (tree-structured Parzen estimators, Bergstra et al. 2011) or `random`.
    pruner: what ends hopeless trials early; None: nothing does.
    seed: of the sampler. Trials run side by side, and how they fall decides what is tried next: a search repeats
      exactly only with one worker.
    """

    space: Mapping[str, Range]
    trials: int = 20
    variants: tuple[str, ...] = ()
    steps: float = 0.25
    fraction: float = 0.1
    sampler: Sampler = "tpe"
    pruner: Median | None = Median()
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.space, Mapping) or not self.space:
            raise ConfigError("search: space must be a mapping from paths to Float, Int or Choice, and not empty")
        for path, values in self.space.items():
            if not isinstance(values, Range):
                raise ConfigError(f"search: {path}: expected Float, Int or Choice, got {values!r}")
            if path.partition(".")[0] not in SECTIONS or "." not in path:
                raise ConfigError(f"search: {path}: only settings of {' and '.join(SECTIONS)} can be searched")
            if path in TAKEN:
                raise ConfigError(f"search: {path}: is the trials' own; `steps` says how long they train")
        if self.trials < 1 or not (0 < self.steps <= 1 and 0 < self.fraction < 1):
            raise ConfigError("search: steps and fraction are shares between 0 and 1, and trials at least 1")
        if self.sampler not in get_args(Sampler):
            raise ConfigError(
                f"search: sampler: {self.sampler!r} is not possible{nearest(self.sampler, get_args(Sampler))}"
            )
        if not (self.pruner is None or isinstance(self.pruner, Median)):
            raise ConfigError(f"search: pruner: expected Median() or None, got {self.pruner!r}")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"search: seed: expected 0 or more and below 2^31, got {self.seed}")

    def identity(self) -> dict[str, object]:
        """What a study depends on beside what its trials are: all but how many of them there shall be."""
        space = {path: {"kind": type(one).__name__, **dataclasses.asdict(one)} for path, one in self.space.items()}
        pruner = None if self.pruner is None else dataclasses.asdict(self.pruner)
        return {"space": space, "sampler": self.sampler, "pruner": pruner, "seed": self.seed}
