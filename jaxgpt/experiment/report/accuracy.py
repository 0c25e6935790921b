"""Shares of right answers: tables and small multiples by length, and heat maps by depth and context.

A metric whose unit is `share` is an accuracy; `NAME_depth_25` is that of a needle a quarter of the way into it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.report.series import in_lengths, points
from jaxgpt.experiment.report.style import GRID, INK, MUTED, log2_axis, looks_in_panels
from jaxgpt.experiment.report.tables import Table, cell, headings

_DEPTH = re.compile(r"(.+)_depth_(\d+)")
_NOTE = "Mean over seeds [95% t interval, unadjusted]; the t interval of a share may reach beyond 0 and 1."


def metrics(report: Report) -> list[str]:
    """The accuracies measured, those at a depth aside."""
    return [name for name in _shares(report) if not _DEPTH.fullmatch(name)]


def whole_answers(report: Report) -> list[str]:
    """The accuracies of whole answers: what a terminal has room for."""
    return [name for name in metrics(report) if "token" not in name]


def _shares(report: Report) -> list[str]:
    found = [name for name in report.results.metrics() if report.results.unit(name) == "share"]
    return sorted(found, key=lambda name: ("token" in name, name))  # whole answers before their tokens


def panels(report: Report, metric: str) -> dict[str, list[str]]:
    """Panel -> its variants for which `metric` was measured, both in the order of the experiment."""
    found: dict[str, list[str]] = {}
    for variant in report.results.variants:
        if report.results.contexts(metric, variant):
            found.setdefault(report.panels.get(variant, ""), []).append(variant)
    return found


# -------------------------------------------------------------------------------------------------------------- tables


def tables(report: Report) -> list[Table]:
    """For every accuracy and panel: variants by lengths."""
    return [
        table(report, metric, panel, variants)
        for metric in metrics(report)
        for panel, variants in panels(report, metric).items()
    ]


def table(report: Report, metric: str, panel: str, variants: Sequence[str]) -> Table:
    """An accuracy of the variants of one panel by length."""
    contexts = sorted({context for variant in variants for context in report.results.contexts(metric, variant)})
    rows = []
    for variant in variants:
        cells = {point.context: cell(point.interval, "share") for point in points(report.results, variant, metric)}
        rows.append([report.label_in_panel(variant), *(cells.get(context, "–") for context in contexts)])
    columns = ["variant", *headings(contexts, report.results.train_length)]
    return Table(title(metric, panel), columns, rows, _NOTE)


def title(metric: str, panel: str = "") -> str:
    """`task_exact_match` -> `Exact match`, in a panel `Copying: exact match`."""
    words = metric.removeprefix("task_").replace("_", " ")
    return f"{panel}: {words}" if panel else words.capitalize()


def far_apart(lengths: Sequence[int]) -> bool:
    """Whether lengths lie so far apart that a logarithmic axis shows them better."""
    return bool(lengths) and max(lengths) > 4 * min(lengths)


# ----------------------------------------------------------------------------------------------------------- heat maps


def by_depth(report: Report) -> list[str]:
    """The accuracies measured at several depths."""
    return list(dict.fromkeys(match[1] for match in map(_DEPTH.fullmatch, _shares(report)) if match))


def heat_maps(report: Report, name: str) -> tuple[list[int], list[int], dict[str, np.ndarray]]:
    """Depths in per cent, contexts, and for each variant the mean share over seeds, [depths, contexts], nan where
    nothing was measured."""
    found = [match for match in map(_DEPTH.fullmatch, _shares(report)) if match and match[1] == name]
    depths = sorted(int(match[2]) for match in found)
    metric = f"{name}_depth_{depths[0]}"
    contexts = report.results.contexts(metric)
    fields = {}
    for variant in (variant for variants in panels(report, metric).values() for variant in variants):
        fields[variant] = means = np.full((len(depths), len(contexts)), np.nan)
        for row, depth in enumerate(depths):
            for point in points(report.results, variant, f"{name}_depth_{depth}"):
                means[row, contexts.index(point.context)] = point.interval.mean
    return depths, contexts, fields


# ------------------------------------------------------------------------------------------------------------- figures


def figures(report: Report) -> dict[str, tuple[str, Figure]]:
    """Name of its PNG -> (caption, figure): curves of every accuracy, heat maps of every one measured at depths."""
    drawn = {}
    for metric in metrics(report):
        caption = f"{title(metric)}: share right by length, mean over seeds with its 95% t interval; L dashed."
        drawn[f"{metric}.png"] = (caption, _curves(report, metric))
    for name in by_depth(report):
        caption = f"{title(name)} by depth of the needle (0: at the start) and context, mean over seeds."
        drawn[f"{name}_by_depth.png"] = (caption, _heat_maps(report, name))
    return drawn


def _grid(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, 3)
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * lines), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    every = list(np.ravel(figure.subplots(lines, columns, squeeze=False)))
    for axes in every[count:]:
        axes.set_visible(False)
    for axes in every:
        axes.tick_params(colors=INK, labelsize=8.5, length=0)
        for side in axes.spines.values():
            side.set_color(GRID)
    return figure, every[:count]


def _curves(report: Report, metric: str) -> Figure:
    """A picture for each panel."""
    shown = panels(report, metric)
    figure, grid = _grid(len(shown), 3.6, 2.9)
    lines = {}
    look_of = looks_in_panels(report)
    for axes, (panel, variants) in zip(grid, shown.items(), strict=True):
        curves = {variant: points(report.results, variant, metric) for variant in variants}
        for variant, curve in curves.items():
            look, x = look_of[variant], [point.context for point in curve]
            low = [point.interval.mean if point.interval.low is None else point.interval.low for point in curve]
            high = [point.interval.mean if point.interval.high is None else point.interval.high for point in curve]
            axes.fill_between(x, np.clip(low, 0, 1), np.clip(high, 0, 1), color=look.colour, alpha=0.14, linewidth=0)
            y = [point.interval.mean for point in curve]
            (line,) = axes.plot(x, y, look.line, color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.7)
            lines[report.label_in_panel(variant)] = line
        axes.axvline(report.results.train_length, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_ylim(-0.03, 1.03)
        lengths = sorted({point.context for curve in curves.values() for point in curve})
        if far_apart(lengths):
            log2_axis(axes, lengths, list(map(str, lengths)))
        axes.set_title(panel or title(metric), loc="left", fontsize=11, fontweight="bold", color=INK)
        axes.set_xlabel("length", fontsize=9, color=MUTED)
        axes.grid(True, color=GRID, linewidth=0.8)
    grid[0].set_ylabel("share right", fontsize=9, color=MUTED)
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=min(len(lines), 6), frameon=False)
    return figure


def _heat_maps(report: Report, name: str) -> Figure:
    """A panel for each variant: depth downwards, context to the right, the mean share in every field."""
    depths, contexts, fields = heat_maps(report, name)
    figure, grid = _grid(len(fields), 3.4, 2.9)
    for axes, (variant, means) in zip(grid, fields.items(), strict=True):
        axes.imshow(means, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for row, column in np.argwhere(np.isfinite(means)):
            value = means[row, column]
            colour = "white" if value < 0.6 else INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
        names = [f"{context}\n{in_lengths(context, report.results.train_length)}".rstrip() for context in contexts]
        axes.set_xticks(range(len(contexts)), names)
        axes.set_yticks(range(len(depths)), [f"{depth}%" for depth in depths])
        axes.set_title(report.label_in_panel(variant), loc="left", fontsize=11, fontweight="bold", color=INK)
        axes.set_xlabel("tokens of context", fontsize=9, color=MUTED)
    grid[0].set_ylabel("depth", fontsize=9, color=MUTED)
    return figure
