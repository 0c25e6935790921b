"""What tells arms apart: evaluations by context, with seeds as intervals, and the settings that differ."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxgpt.experiment.report.series import POSITION, PROTOCOLS, Point, exponentials, in_lengths, points, ratios
from jaxgpt.experiment.results import Results, Row
from jaxgpt.experiment.serve.arms import Arm
from jaxgpt.experiment.serve.reading import number, whole

_FEW = 16  # contexts that a table can show

# --------------------------------------------------------------------------------------------------------- evaluations


def results_of(experiment: str, arms: Sequence[Arm]) -> Results:
    """All measurements of the arms; what is not a measurement is left out."""
    rows: dict[tuple[object, ...], Row] = {}
    for arm in arms:
        for run, digest in arm.sources:
            for one in _measurements(run.evaluations.get(digest, {})):
                metric, context, value, unit = one
                seed = 0 if arm.baseline else run.seed
                row = Row(experiment, arm.name, seed, metric, context, value, unit)
                rows[arm.name, seed, metric, context] = row
    lengths = {arm.name: _length(arm) for arm in arms}
    trained = [lengths[arm.name] for arm in arms if not arm.baseline]
    length = statistics.mode(trained) if trained else 1
    baselines = [arm.name for arm in arms if arm.baseline]
    return Results(rows.values(), length, [arm.name for arm in arms], baselines, lengths)


def _measurements(evaluation: Mapping[str, Any]) -> Iterable[tuple[str, int, float, str]]:
    found = evaluation.get("measurements")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict) and number(one.get("value")) is not None and whole(one.get("context")) > 0:
            yield str(one.get("metric")), one["context"], float(one["value"]), str(one.get("unit", ""))


def _length(arm: Arm) -> int:
    """The training length in tokens, 1 where unknown."""
    for run, digest in arm.sources:
        for wanted in run.wanted:
            if wanted.get("hash") == digest and whole(wanted.get("length")) > 0:
                return wanted["length"]
    return 1


def comparison(results: Results) -> list[dict[str, Any]]:
    """One view for each metric, the primary ones first: `name`, `unit`, `contexts` and, by arm, points with intervals.

    `log` says that values are ratios in nature, `table` that there are few enough contexts to print.
    """
    everyone = [*results.variants, *results.baselines]
    known = [f"{protocol}_{end}" for protocol in PROTOCOLS for end in ("nll", "bits_per_byte")]
    metrics = results.metrics()
    views = []
    for metric in sorted(metrics, key=lambda name: (known.index(name) if name in known else len(known), name)):
        protocol = metric.removesuffix("_nll").removesuffix("_bits_per_byte")
        name, unit = PROTOCOLS.get(protocol, protocol.replace("_", " ")), results.unit(metric)
        plain = {arm: points(results, arm, metric) for arm in everyone}
        if metric == POSITION:
            views.append(_view("Loss by position", unit, plain, results))
        elif metric.endswith("_nll"):
            perplexities = {arm: exponentials(curve) for arm, curve in plain.items()}
            relative = {arm: ratios(results, arm, metric) for arm in results.variants}
            views.append(_view(f"{name}: perplexity", "perplexity", perplexities, results, log=True))
            if any(relative.values()):
                views.append(_view(f"{name}: relative to L", "ratio", relative, results, log=True))
        elif metric.endswith("_bits_per_byte"):
            views.append(_view(f"{name}: bits per byte", "bits per byte", plain, results))
        else:
            views.append(_view(name, unit, plain, results))
    return views


def _view(
    name: str, unit: str, curves: Mapping[str, Sequence[Point]], results: Results, log: bool = False
) -> dict[str, Any]:
    contexts = sorted({point.context for curve in curves.values() for point in curve})
    one_length = len(results.lengths) == 1 and results.train_length > 1
    return {
        "name": name,
        "unit": unit,
        "log": log,
        "table": len(contexts) <= _FEW,
        "contexts": contexts,
        "names": [in_lengths(context, results.train_length) if one_length else "" for context in contexts],
        "arms": {
            arm: {
                "x": [point.context for point in curve],
                "mean": [_digits(point.interval.mean) for point in curve],
                "low": [_digits(point.interval.low) for point in curve],
                "high": [_digits(point.interval.high) for point in curve],
                "count": [point.interval.count for point in curve],
            }
            for arm, curve in curves.items()
            if curve
        },
    }


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


# ------------------------------------------------------------------------------------------------------ configurations


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """A nested mapping as dotted key -> value in JSON."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = json.dumps(value, ensure_ascii=False, default=str)
    return found


def differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Dotted key -> values in JSON, of the keys that are not the same everywhere; None where a key is missing."""
    flattened = [flat(config) for config in configs.values()]
    keys = dict.fromkeys(key for one in flattened for key in one)
    found = {key: [one.get(key) for one in flattened] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}
