"""What an experiment measured: rows, the CSV files that hold them, and look-ups by variant, metric and context.

`results.csv` holds only what a seed decides; its rows have one order and its numbers one format, so the same results
make the same bytes. `timings.csv` holds what a clock measured and never repeats bit for bit.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from jaxgpt.errors import UserError, nearest
from jaxgpt.files import write_atomic


class MissingResult(UserError):
    """A number that was asked for and never measured. The message names variant, metric and context."""


@dataclasses.dataclass(frozen=True, order=True)
class Row:
    """One measured number.

    `context` is in tokens (for `position_nll` the position); `unit` is that of `value`, such as `nats/token`.
    """

    experiment: str
    variant: str
    seed: int
    metric: str
    context: int
    value: float
    unit: str


@dataclasses.dataclass(frozen=True, order=True)
class Timing:
    """One number measured by a clock, such as the seconds of a step; never part of `results.csv`."""

    variant: str
    seed: int
    metric: str
    value: float
    unit: str


@dataclasses.dataclass(frozen=True, order=True)
class DocumentLoss:
    """The part of a measurement that falls into one held-out document: `value`, a sum of losses, over `tokens`."""

    variant: str
    seed: int
    metric: str
    context: int
    document: int
    value: float
    tokens: int


# -------------------------------------------------------------------------------------------------------------- files

R = TypeVar("R", Row, Timing, DocumentLoss)


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to CSV in ascending order of all their columns, numbers as the shortest text that reads back equal.

    Raises:
      UserError: two rows measure the same thing.
    """
    write_atomic(path, _to_csv(Row, _unique(rows)))


def read_results(path: Path) -> list[Row]:
    """The rows of a file written by `write_results`. Raises UserError naming file and line where it is not one."""
    return _from_csv(Row, path)


def write_timings(path: Path, timings: Iterable[Timing]) -> None:
    """Write clock-measured numbers to CSV, in the order and format of `write_results`."""
    write_atomic(path, _to_csv(Timing, sorted(timings)))


def read_timings(path: Path) -> list[Timing]:
    """The timings of a file written by `write_timings`. Raises UserError naming file and line where it is not one."""
    return _from_csv(Timing, path)


def write_documents(path: Path, losses: Iterable[DocumentLoss]) -> None:
    """Write losses by document to CSV, in the order and format of `write_results`."""
    write_atomic(path, _to_csv(DocumentLoss, sorted(losses)))


def read_documents(path: Path) -> list[DocumentLoss]:
    """The losses of a file written by `write_documents`. Raises UserError naming file and line where it is not one."""
    return _from_csv(DocumentLoss, path)


def _unique(rows: Iterable[Row]) -> list[Row]:
    """Rows sorted, each measurement once; the same row given twice counts once."""
    ordered = sorted(set(rows))
    for before, row in itertools.pairwise(ordered):
        if _key(before) == _key(row):
            raise UserError(
                f"{row.variant} seed {row.seed}: {row.metric} at context {row.context} was measured twice, "
                f"as {before.value!r} {before.unit} and {row.value!r} {row.unit}; evaluate this run again"
            )
    return ordered


def _key(row: Row) -> tuple[str, str, int, str, int]:
    return (row.experiment, row.variant, row.seed, row.metric, row.context)


def _to_csv(kind: type[R], rows: Iterable[R]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(kind)]
    writer.writerow(names)
    for row in rows:
        # float() strips numpy scalars, whose repr names their type
        values = [getattr(row, name) for name in names]
        writer.writerow([repr(float(v)) if name == "value" else v for name, v in zip(names, values, strict=True)])
    return text.getvalue()


def _from_csv(kind: type[R], path: Path) -> list[R]:
    names = [field.name for field in dataclasses.fields(kind)]
    convert = {"seed": int, "context": int, "document": int, "tokens": int, "value": float}
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    lines = csv.reader(io.StringIO(text))
    if next(lines, None) != names:
        raise UserError(f"{path}: the first line must be {','.join(names)}")
    rows = []
    for number, cells in enumerate(lines, start=2):
        try:
            pairs = zip(names, cells, strict=True)
            rows.append(kind(**{name: convert.get(name, str)(cell) for name, cell in pairs}))  # type: ignore[arg-type]
        except ValueError:
            raise UserError(f"{path}, line {number}: {','.join(cells)!r} is not a row of {','.join(names)}") from None
    return rows


# ------------------------------------------------------------------------------------------------------------ look-ups


def log_timing(metric: str) -> str:
    """The name under which the logarithm of a timing can be looked up, at context 0, for ratios of times."""
    return f"log_{metric}"


class Results:
    """The rows of one experiment, with its training length and the order of its variants.

    Args:
      rows: the measurements, in any order.
      train_length: L, the sequence length variants were trained with, in tokens.
      lengths: variant -> its own L, where variants were trained with different ones.
      timings: what a clock measured; seen by `log_timing`, and no part of `rows`.
      variants: the order in which reports name the variants; those left out follow in the order of their rows.
      given: variants whose weights no seed decides, measured once.
      baselines: variants that are yardsticks and not arms of the comparison, such as the n-gram.

    Raises:
      UserError: two rows measure the same thing.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        train_length: int,
        variants: Sequence[str] = (),
        baselines: Sequence[str] = ("5-gram",),
        lengths: Mapping[str, int] | None = None,
        timings: Iterable[Timing] = (),
        given: Iterable[str] = (),
    ):
        rows = list(rows)
        self.rows: tuple[Row, ...] = tuple(_unique(rows))
        self.train_length = train_length
        self.given = frozenset(given)
        self._lengths = dict(lengths or {})
        present = dict.fromkeys(row.variant for row in rows)
        listed = [name for name in variants if name in present]
        ordered = list(dict.fromkeys([*listed, *present]))
        self.variants: tuple[str, ...] = tuple(name for name in ordered if name not in baselines)
        self.baselines: tuple[str, ...] = tuple(name for name in ordered if name in baselines)
        self._values: dict[tuple[str, str, int], dict[int, float]] = {}
        self._units: dict[str, str] = {}
        for row in self.rows:
            self._values.setdefault((row.variant, row.metric, row.context), {})[row.seed] = row.value
            self._units.setdefault(row.metric, row.unit)
        for timing in timings:
            key = (timing.variant, log_timing(timing.metric), 0)
            self._values.setdefault(key, {})[timing.seed] = math.log(timing.value)
            self._units.setdefault(log_timing(timing.metric), f"log {timing.unit}")

    def length(self, variant: str) -> int:
        """L of a variant, in tokens."""
        return self._lengths.get(variant, self.train_length)

    @property
    def lengths(self) -> list[int]:
        """The training lengths of all variants, ascending, each once."""
        return sorted({self.length(variant) for variant in self.variants}) or [self.train_length]

    def values(self, variant: str, metric: str, context: int) -> dict[int, float]:
        """seed -> value, seeds ascending. Raises MissingResult where nothing was measured."""
        found = self._values.get((variant, metric, context))
        if found:
            return dict(found)
        everyone = [*self.variants, *self.baselines]
        if variant not in everyone:
            raise MissingResult(f"no results of a variant {variant!r}{nearest(variant, everyone)}")
        if metric not in self.metrics(variant):
            raise MissingResult(f"{variant}: no results of {metric!r}{nearest(metric, self.metrics(variant))}")
        known = ", ".join(map(str, self.contexts(metric, variant)))
        raise MissingResult(f"{variant}: {metric} was not measured at context {context} (only at {known})")

    def has(self, variant: str, metric: str, context: int) -> bool:
        """Whether any seed measured this."""
        return (variant, metric, context) in self._values

    def metrics(self, variant: str | None = None) -> list[str]:
        """Names of the metrics measured, of one variant or of any, in alphabetical order."""
        return sorted({name for who, name, _ in self._values if variant in (None, who)})

    def contexts(self, metric: str, variant: str | None = None) -> list[int]:
        """Contexts in tokens, ascending, at which a metric was measured, of one variant or of any."""
        return sorted({length for who, name, length in self._values if name == metric and variant in (None, who)})

    def seeds(self, variant: str) -> list[int]:
        """Seeds of which anything was measured, ascending."""
        return sorted({seed for (who, _, _), found in self._values.items() if who == variant for seed in found})

    def unit(self, metric: str) -> str:
        """The unit of a metric's values. Raises MissingResult for a metric never measured."""
        if metric not in self._units:
            raise MissingResult(f"no results of {metric!r}{nearest(metric, self._units)}")
        return self._units[metric]
