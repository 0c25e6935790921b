"""Training curves over seeds on their way to a browser: few points, each with its t interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from jaxgpt.experiment import statistics
from jaxgpt.experiment.serve.reading import Training, Validation
from jaxgpt.experiment.serve.watch import Run

MOST_POINTS = 500
"""Points of a curve, and no more."""

_ALL_POINTS = 24_000  # of all curves of a picture, which is what a browser draws without a pause
_FEWEST = 60

Axis = Literal["step", "tokens", "seconds"]
Line = Training | Validation


@dataclasses.dataclass
class Series:
    """A curve as parallel lists; `low` and `high` are None where one seed cannot tell.

    `x` is in the unit of the axis, `mean` in nats per token, `count` the number of seeds.
    """

    x: list[float] = dataclasses.field(default_factory=list)
    mean: list[float] = dataclasses.field(default_factory=list)
    low: list[float | None] = dataclasses.field(default_factory=list)
    high: list[float | None] = dataclasses.field(default_factory=list)
    count: list[int] = dataclasses.field(default_factory=list)


def points_each(curves: int) -> int:
    """How many points each of so many curves may have."""
    return max(_FEWEST, min(MOST_POINTS, _ALL_POINTS // max(1, curves)))


def over_seeds(runs: Sequence[Sequence[Line]], axis: Axis, most: int = MOST_POINTS) -> Series:
    """The mean over runs with its 95% t interval.

    The steps of all runs are divided into at most `most` stretches of equal numbers; a run counts in each with the mean
    of its losses there. Losses that are not finite are left out.
    """
    kept = [
        [line for line in lines if math.isfinite(line.loss) and math.isfinite(getattr(line, axis))] for lines in runs
    ]
    steps = sorted({line.step for lines in kept for line in lines})
    size = max(1, math.ceil(len(steps) / most))
    place = {step: number // size for number, step in enumerate(steps)}
    bins: list[list[tuple[float, float]]] = [[] for _ in range(math.ceil(len(steps) / size))]
    for lines in kept:
        parts: dict[int, list[Line]] = {}
        for line in lines:
            parts.setdefault(place[line.step], []).append(line)
        for number, part in parts.items():
            x, loss = _mean(getattr(line, axis) for line in part), _mean(line.loss for line in part)
            bins[number].append((x, loss))
    found = Series()
    for part in bins:
        interval = statistics.t_interval([loss for _, loss in part])
        found.x.append(_mean(x for x, _ in part))
        found.mean.append(interval.mean)
        found.low.append(interval.low)
        found.high.append(interval.high)
        found.count.append(interval.count)
    return found


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


class Curves:
    """Curves of runs, made again only where their metrics changed."""

    def __init__(self, most: int = 2000):
        self._most = most
        self._kept: dict[tuple[object, ...], dict[str, Any]] = {}

    def of(self, runs: Sequence[Run], axis: Axis, most: int) -> dict[str, Any]:
        """`training` and `validation` of these runs together, as plain lists."""
        key = (*(run.folder.path for run in runs), axis, most)
        version = [run.metrics.version for run in runs]
        kept = self._kept.get(key)
        if kept is None or kept["version"] != version:
            if len(self._kept) >= self._most:
                self._kept.clear()
            kept = self._kept[key] = {
                "version": version,
                "training": _plain(over_seeds([run.metrics.training for run in runs], axis, most)),
                "validation": _plain(over_seeds([run.metrics.validation for run in runs], axis, most)),
            }
        return {"training": kept["training"], "validation": kept["validation"]}


def numbers(run: Run, name: str, axis: Axis) -> dict[str, Any]:
    """Another number of a run's training lines in the place of the training loss."""
    values = run.values(name)
    lines = [line._replace(loss=values[line.step]) for line in run.metrics.training if line.step in values]
    return {"training": _plain(over_seeds([lines], axis)), "validation": _plain(Series())}


def _plain(series: Series) -> dict[str, list[Any]]:
    """Numbers with the digits a picture needs."""
    return {
        name: [value if value is None else float(f"{value:.6g}") for value in values]
        for name, values in dataclasses.asdict(series).items()
    }
