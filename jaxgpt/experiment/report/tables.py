"""The tables of a report as plain text cells, the same for Markdown and HTML."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics as stdlib_statistics
from collections.abc import Mapping, Sequence

from jaxgpt.experiment.claims import context_gate
from jaxgpt.experiment.contrasts import FIXED_TARGET, nll, show_interval
from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.report.series import PROTOCOLS, Point, exponentials, in_lengths, points
from jaxgpt.experiment.results import MissingResult
from jaxgpt.experiment.statistics import Interval, t_interval

MANY = 7
"""Variants from which on a ranking helps."""

FAILS = "†"
"""Marks the variants that do not use their context."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def measured(report: Report) -> list[Table]:
    """Variants by contexts, baselines below: perplexity, loss and bits per byte of every protocol measured."""
    tables = []
    for protocol, name in PROTOCOLS.items():
        nll, bits = f"{protocol}_nll", f"{protocol}_bits_per_byte"
        seen = {}
        for variant in [*report.results.variants, *report.results.baselines]:
            seen[variant] = {metric: points(report.results, variant, metric) for metric in (nll, bits)}
        perplexity = {variant: exponentials(found[nll]) for variant, found in seen.items()}
        tables.append(_by_context(report, f"{name}: perplexity", perplexity, "perplexity"))
        tables.append(_by_context(report, f"{name}: nats per token", {v: f[nll] for v, f in seen.items()}, "nats"))
        tables.append(_by_context(report, f"{name}: bits per byte", {v: f[bits] for v, f in seen.items()}, "bits"))
    return [table for table in tables if table.rows]


def failing(report: Report) -> set[str]:
    """Variants that fail the context gate."""
    return {variant for variant in report.results.variants if context_gate(report.results, variant).passed is False}


def _by_context(report: Report, title: str, curves: dict[str, list[Point]], kind: str) -> Table:
    length = report.results.train_length
    contexts = sorted({point.context for curve in curves.values() for point in curve})
    marked = failing(report)
    rows = []
    for variant, curve in curves.items():
        if curve:
            cells = {point.context: cell(point.interval, kind) for point in curve}
            name = _mark(report.label(variant), variant in marked)
            rows.append([name, *(cells.get(context, "–") for context in contexts)])
    columns = ["variant", *map(str, contexts)]
    if len(report.results.lengths) == 1:
        columns[1:] = headings(contexts, length)
    note = "Mean over seeds [95% t interval, unadjusted]."
    if kind == "perplexity":
        note = "Geometric mean over seeds [95% t interval, unadjusted]."
    note += _gate_note({variant for variant in marked if curves.get(variant)})
    return Table(title, columns, rows, note)


def _mark(text: str, fails: bool) -> str:
    return f"{text} {FAILS}" if fails else text


def _gate_note(marked: set[str]) -> str:
    return f" {FAILS} fails the context gate: it does not use its context." if marked else ""


def overviews(report: Report) -> list[Table]:
    """What a report of many arms adds: the table by training and test length, rankings."""
    return [*by_train_length(report), *ranking(report)]


def by_train_length(report: Report) -> list[Table]:
    """The shape of the ALiBi paper's tables: a row per training and test length, a column per group of variants that
    differ in their training length alone. Empty without groups."""
    if not report.groups:
        return []
    columns, marked = list(dict.fromkeys(report.groups.values())), failing(report)
    tables = []
    for protocol, name in PROTOCOLS.items():
        cells: dict[tuple[int, int], dict[str, str]] = {}
        for variant, group in report.groups.items():
            for point in exponentials(points(report.results, variant, f"{protocol}_nll")):
                row = cells.setdefault((report.results.length(variant), point.context), {})
                row[group] = _mark(cell(point.interval, "perplexity"), variant in marked)
        rows = [
            [f"{train} / {test}", *(row.get(g, "–") for g in columns)] for (train, test), row in sorted(cells.items())
        ]
        title = f"{name}: perplexity by training and test length"
        note = "Geometric mean over seeds [95% t interval, unadjusted]." + _gate_note(marked)
        tables.append(Table(title, ["train / test", *columns], rows, note))
    return [table for table in tables if table.rows]


def ranking(report: Report, multiples: Sequence[float] = (1, 4)) -> list[Table]:
    """Variants from best to worst at some contexts, with the paired difference to the best. Empty for a few variants,
    which need no ranking."""
    if len(report.results.variants) < MANY:
        return []
    return [table for table in (_ranking(report, multiple) for multiple in multiples) if table.rows]


def _ranking(report: Report, multiple: float) -> Table:
    found = {}
    for variant in report.results.variants:
        with contextlib.suppress(MissingResult):
            found[variant], _ = nll(variant, multiple).per_seed(report.results)
    means = {variant: t_interval(list(values.values())) for variant, values in found.items()}
    order, marked = sorted(means, key=lambda variant: means[variant].mean), failing(report)
    rows = []
    for place, variant in enumerate(order, start=1):
        behind = "–"
        if variant != order[0]:
            with contextlib.suppress(MissingResult):  # no seed has both
                paired, _ = (nll(variant, multiple) - nll(order[0], multiple)).per_seed(report.results)
                behind = cell(t_interval(list(paired.values())), "nats")
        name = _mark(report.label(variant), variant in marked)
        rows.append([str(place), name, cell(means[variant], "nats"), behind])
    title = f"Ranking with context {in_lengths(round(multiple * 16), 16)}"
    note = (
        "Fixed targets, nats per token, mean over seeds [95% t interval]; differences are paired by seed. Intervals "
        "are unadjusted: of many neighbours some will seem apart by chance."
    ) + _gate_note(marked & set(order))
    return Table(title, ["rank", "variant", "nats per token", "behind the best"], rows, note)


def headings(contexts: Sequence[int], length: int) -> list[str]:
    """Contexts as column names, with their multiples of L where these read well: `512 (4L)`."""
    return [f"{context} ({in_lengths(context, length)})".replace(" ()", "") for context in contexts]


def cell(interval: Interval, kind: str) -> str:
    """A mean with its interval, where it has one that is no point, in the digits of its kind."""
    digits = {"perplexity": 2 if interval.mean < 100 else 1, "nats": 3, "bits": 3, "share": 2}[kind]
    mean = f"{interval.mean:.{digits}f}"
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return mean
    return f"{mean} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def verdicts(report: Report) -> Table:
    """Every judged claim with its rule, estimate and reason."""
    rows = [
        [
            one.verdict,
            one.claim,
            one.rule,
            estimate(one.estimate, one.low, one.high),
            str(one.seeds),
            one.gate,
            one.reason,
        ]
        for one in report.verdicts
        if one.verdict != "shown"
    ]
    headlines = sum(one.headline for one in report.verdicts)
    adjusted = f" Headline claims ({headlines}) are adjusted by Holm." if headlines > 1 else ""
    note = f"One-sided tests over seeds at the level 0.05.{adjusted} Intervals are 95% and unadjusted."
    return Table("Verdicts", ["verdict", "claim", "rule", "estimate", "seeds", "gate", "reason"], rows, note)


def shown(report: Report) -> Table:
    """What is shown and not judged."""
    rows = [
        [one.claim, " ".join(filter(None, [estimate(one.estimate, one.low, one.high), one.unit])), one.reason]
        for one in report.verdicts
        if one.verdict == "shown"
    ]
    return Table("Shown, not judged", ["quantity", "estimate", "detail"], rows, "No claim is made about these.")


def gates(report: Report) -> Table:
    """Whether each variant uses its context; empty where no fixed targets were measured."""
    rows = []
    for variant in report.results.variants if report.results.contexts(FIXED_TARGET) else ():
        gate = context_gate(report.results, variant)
        drop = show_interval(gate.drop) if gate.drop else "–"
        state = {True: "passes", False: f"fails {FAILS}", None: "unknown"}[gate.passed]
        rows.append([report.label(variant), drop, state, "" if gate.passed is not None else gate.reason])
    length = report.results.train_length
    for baseline in report.results.baselines:
        drop = context_gate(report.results, baseline).drop
        if drop is not None:
            rows.append([report.label(baseline), show_interval(drop), "–", "never gated: for comparison"])
    note = (
        f"Loss with context L/4 less that with L = {length}, same targets ({FIXED_TARGET}), nats per token: at least "
        "0.02 with its interval above zero, or a verdict on the model would say nothing about its use of context. "
        "Where all of the shortest context is scored, part of the drop is its early tokens'; a counting baseline "
        "shows how much. A model that passes by no more than that is not known to use longer context."
    )
    return Table("Context gate", ["variant", "nll(L/4) - nll(L)", "gate", "why unknown"], rows, note)


def noise(report: Report) -> Table:
    """What the claims' contrasts owe to the documents that were held out."""
    rows = [
        [one.text, show_interval(Interval(one.estimate, one.low, one.high, None, 0)), str(one.documents)]
        for one in report.noise
    ]
    note = (
        "Mean over the same seeds [95% percentile interval of a bootstrap over documents]. It says how far another "
        "choice of held-out documents would move the number; verdicts rest on the spread between seeds alone."
    )
    return Table("Evaluation noise", ["quantity", "estimate", "documents"], rows, note)


def runs(report: Report) -> Table:
    """Parameters, tokens and whatever else the experiment tells of its runs, with medians of what a clock measured."""
    columns = list(dict.fromkeys(name for row in report.runs for name in row)) or ["variant"]
    clocked = sorted({(timing.metric, timing.unit) for timing in report.timings})
    rows = []
    for row in report.runs or [{"variant": name} for name in dict.fromkeys(t.variant for t in report.timings)]:
        variant = str(row.get("variant", ""))
        cells = [_shown(row.get(name)) for name in columns]
        cells[columns.index("variant")] = report.label(variant)
        for metric, _ in clocked:
            values = [t.value for t in report.timings if (t.variant, t.metric) == (variant, metric)]
            cells.append(f"{stdlib_statistics.median(values):.4g}" if values else "–")
        rows.append(cells)
    names = [name.replace("_", " ") for name in columns]
    names += [f"{metric.replace('_', ' ')} ({unit})" for metric, unit in clocked]
    note = "Clock-measured columns are medians over seeds; they vary from run to run." if clocked else ""
    return Table("Runs", names, rows, note)


def tuning(report: Report) -> Table:
    """Every variant's loss at every learning rate tried, the choice, and what it cost."""
    note = (
        "Nats per token at the training length, on documents held out of the training part; columns are multiples of "
        "the learning rate that the variant would have had. Tokens and seconds (by the clock, of training) are of all "
        "its trials together."
    )
    return _by_variant("Learning rates", report, report.tuning, note)


def search(report: Report) -> Table:
    """Every searched variant's best settings, the loss there, and what the search cost."""
    note = (
        "The best point of each variant's search, by nats per token at the training length, on documents held out of "
        "the training part. An importance is the setting's share of what decides whether a trial is among the better "
        "half. Tokens and seconds (by the clock, of training) are of all its trials together."
    )
    return _by_variant("Settings found by search", report, report.search, note)


def trials(report: Report) -> Table:
    """Every trial of the search."""
    rows = [{name: value for name, value in row.items() if name != "run"} for row in report.trials]
    note = "The loss of a trial that was pruned is the last it had. `search.csv` names the runs, too."
    return _by_variant("Trials of the search", report, rows, note)


def _by_variant(title: str, report: Report, lines: Sequence[Mapping[str, object]], note: str) -> Table:
    columns = list(dict.fromkeys(name for row in lines for name in row)) or ["variant"]
    rows = []
    for row in lines:
        cells = [_shown(row.get(name)) for name in columns]
        cells[columns.index("variant")] = report.label(str(row["variant"]))
        rows.append(cells)
    return Table(title, columns, rows, note)


def estimate(mean: float | None, low: float | None, high: float | None) -> str:
    """An estimate with its interval, as far as known."""
    return "–" if mean is None else show_interval(Interval(mean, low, high, None, 0))


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
