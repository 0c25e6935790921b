"""The figures, by matplotlib. The same results make the same pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from jaxgpt.experiment.report import accuracy
from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.report.series import (
    POSITION,
    PROTOCOLS,
    Point,
    curve_variants,
    exponentials,
    in_lengths,
    limits,
    log_ticks,
    points,
    ratios,
    thinned,
    validation,
)
from jaxgpt.experiment.report.style import GRID, INK, MUTED, Look, log2_axis, looks
from jaxgpt.experiment.statistics import t_interval

Curves = dict[str, list[Point]]


def figures(report: Report) -> dict[str, tuple[str, Figure]]:
    """Name of its PNG -> (caption, figure), those for which there is something to draw, the most important first."""
    results = report.results
    everyone = [*results.variants, *results.baselines]
    drawn: dict[str, tuple[str, Figure]] = accuracy.figures(report)
    for protocol, name in PROTOCOLS.items():
        metric = f"{protocol}_nll"
        curves = {v: exponentials(points(results, v, metric)) for v in everyone}
        fixed = protocol == "fixed_target"
        if any(curves.values()):
            file = "perplexity.png" if fixed else f"perplexity_{protocol}.png"
            what, x_name = ("context", "tokens of context") if fixed else ("window length", "tokens of a window")
            caption = f"{name}: perplexity by {what}, mean over seeds with its 95% t interval."
            drawn[file] = (
                caption,
                _along_context(report, curves, f"{name}: perplexity", "perplexity", x_name),
            )
        if fixed and any(ratios(results, v, metric) for v in results.variants):
            curves = {v: ratios(results, v, metric) for v in results.variants}
            title = "Perplexity relative to the training length"
            caption = (
                "R(c): perplexity with context c over that with context L, paired by seed, with its 95% t interval."
            )
            drawn["extrapolation.png"] = (caption, _along_context(report, curves, title, "R(c)", "tokens of context"))
    curves = {v: points(results, v, POSITION) for v in results.variants}
    if any(curves.values()):
        caption = "Loss by position in one long window, mean over seeds with its 95% t interval."
        drawn["loss_by_position.png"] = (caption, _by_position(report, curves))
    if report.curves:
        caption = "Training: loss of each run (thin) and validation loss, mean over seeds (marks)."
        drawn["training.png"] = (caption, _training(report))
    return drawn


# ------------------------------------------------------------------------------------------------------------- figures


def _along_context(report: Report, curves: Curves, title: str, y_name: str, x_name: str) -> Figure:
    figure, axes = _canvas(title, _band_note(report), x_name, y_name)
    shown = {variant: curve for variant, curve in curves.items() if curve}
    low, high = limits(list(shown.values()))
    _log_y(axes, low / (high / low) ** 0.05, high * (high / low) ** 0.05)
    for variant, curve in shown.items():
        _draw(axes, curve, looks(report)[variant])
    if y_name == "R(c)":
        axes.axhline(1.0, color=MUTED, linewidth=0.8, zorder=1)
    contexts = sorted({point.context for curve in shown.values() for point in curve})
    _log_x(axes, report, contexts)
    _name_lines(axes, report, shown)
    return figure


def _by_position(report: Report, curves: Curves) -> Figure:
    figure, axes = _canvas("Loss by position", _band_note(report), "position in the window (tokens)", "nats per token")
    shown = {variant: curve for variant, curve in curves.items() if curve}
    for variant, curve in shown.items():
        _draw(axes, curve, looks(report)[variant], marked=False)
    low, high = limits(list(shown.values()))
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    positions = sorted({point.context for curve in shown.values() for point in curve})
    length = report.results.train_length
    _log_x(axes, report, [p for p in positions if p & (p - 1) == 0 or p == length] or positions)
    axes.set_xlim(positions[0] / 1.1, positions[-1] * 1.04)
    _name_lines(axes, report, shown)
    return figure


def _training(report: Report) -> Figure:
    note = "Lines: training loss of each run. Marks: validation loss, mean over seeds."
    figure, axes = _canvas("Training", note, "training tokens", "nats per token")
    ends: Curves = {}
    tops, bottoms = [], []
    for variant in curve_variants(report):
        look = looks(report).get(variant) or Look("#444444", "o", "circle", "-", "solid")
        for curve in report.curves:
            if curve.variant == variant:
                tokens, loss = thinned(curve)
                axes.plot(tokens, loss, color=look.colour, linewidth=0.7, alpha=0.45, zorder=2)
                tops += loss[max(1, len(loss) // 50) :][:1]
                bottoms += loss
                if tokens:
                    ends[variant] = ends.get(variant, []) or _end(tokens[-1], loss[-1])
        checks = validation(report, variant)
        if checks:
            x, y = [tokens for tokens, _ in checks], [interval.mean for _, interval in checks]
            axes.plot(
                x, y, look.marker, linestyle="none", color=look.colour, markersize=5, mec="white", mew=0.6, zorder=4
            )
            ends[variant] = _end(x[-1], y[-1])
    if bottoms:
        low, high = min(bottoms), max(tops or bottoms)
        margin = 0.05 * (high - low) or 0.05  # a single point has no range
        axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, max((point.context for end in ends.values() for point in end), default=1) * 1.01)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tokens(value)))
    _name_lines(axes, report, ends)
    return figure


def _end(x: float, y: float) -> list[Point]:
    """A curve of one point, for the label at a line's end."""
    return [Point(int(x), t_interval([y]))]


def _tokens(value: float) -> str:
    """1500000 -> 1.5M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


# --------------------------------------------------------------------------------------------------------------- parts


def _canvas(title: str, note: str, x_name: str, y_name: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.4, 4.9), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.135, 0.75, 0.725))
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=24)
    axes.annotate(
        note, (0, 1), xycoords="axes fraction", xytext=(0, 9), textcoords="offset points", fontsize=9.5, color=MUTED
    )
    axes.set_xlabel(x_name, fontsize=10.5, color=MUTED)
    axes.set_ylabel(y_name, fontsize=10.5, color=MUTED)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9.5, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    return figure, axes


def _band_note(report: Report) -> str:
    """What line and band are; without bands where one seed cannot give any."""
    seeds = max((len(report.results.seeds(variant)) for variant in report.results.variants), default=0)
    return "One seed: no interval." if seeds < 2 else f"Mean of {seeds} seeds; the band is the 95% t interval."


def _draw(axes: Axes, curve: Sequence[Point], look: Look, marked: bool = True) -> None:
    x = [point.context for point in curve]
    banded = [point for point in curve if point.interval.low is not None]
    if banded:
        low = np.array([point.interval.low for point in banded], np.float64)
        high = np.array([point.interval.high for point in banded], np.float64)
        axes.fill_between([p.context for p in banded], low, high, color=look.colour, alpha=0.16, linewidth=0, zorder=2)
    marker = look.marker if marked else ""
    y = [point.interval.mean for point in curve]
    style = {"marker": marker, "markersize": 5.5, "mec": "white", "mew": 0.8, "linewidth": 1.9, "linestyle": look.line}
    axes.plot(x, y, color=look.colour, zorder=3, **style)


def _log_x(axes: Axes, report: Report, contexts: Sequence[int]) -> None:
    """Base 2, a tick per context with its multiple of L below, and a line where training ended."""
    length = report.results.train_length
    names = [f"{context}\n{in_lengths(context, length)}".rstrip() for context in contexts]
    log2_axis(axes, contexts, names)
    axes.set_xlim(contexts[0] / 1.12, contexts[-1] * 1.06)
    axes.axvline(length, color=INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        "training length L",
        (length, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -3),
        textcoords="offset points",
        fontsize=8.5,
        color=MUTED,
        va="top",
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _log_y(axes: Axes, low: float, high: float) -> None:
    if high / low < 1.02:
        low, high = low / 1.01, high * 1.01
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks = log_ticks(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())


def _name_lines(axes: Axes, report: Report, curves: Curves, gap: float = 0.052) -> None:
    """Name each line at its right end, in its colour, pushed apart so that no two names touch."""
    right = max((point.context for curve in curves.values() for point in curve), default=0)
    wanted = {}
    for variant, curve in curves.items():
        last = max(curve, key=lambda point: point.context)
        _, y = axes.transAxes.inverted().transform(axes.transData.transform((right, last.interval.mean)))
        wanted[variant] = float(min(max(y, 0.0), 1.0))
    names = sorted(wanted, key=lambda variant: wanted[variant])
    heights = spread([wanted[name] for name in names], gap)
    texts = []
    for name, height in zip(names, heights, strict=True):
        look = looks(report).get(name)
        text = axes.annotate(
            report.label(name),
            (1.0, wanted[name]),
            xycoords="axes fraction",
            xytext=(1.035, height),
            textcoords="axes fraction",
            fontsize=10,
            fontweight="bold",
            color=look.colour if look else INK,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": look.colour if look else INK,
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )
        texts.append(text)
    _make_room(axes, texts)


def _make_room(axes: Axes, texts: Sequence[Text]) -> None:
    """Widen the picture where a text would leave it on the right; what is drawn stays as large as it is."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches()
    ends = [text.get_window_extent().x1 for text in texts]
    wanted = (max(ends, default=0.0) + 8) / figure.dpi
    if wanted > width:
        left, bottom, across, up = axes.get_position().bounds
        figure.set_size_inches(wanted, height)
        axes.set_position((left * width / wanted, bottom, across * width / wanted, up))


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved as little as needed to lie `gap` apart: neighbours that collide move as one block."""
    blocks: list[list[float]] = []  # [centre, size]
    for height in heights:
        blocks.append([height, 1])
        while len(blocks) > 1:
            (below, m), (above, n) = blocks[-2:]
            if above - below >= gap * (m + n) / 2:
                break
            blocks[-2:] = [[(below * m + above * n) / (m + n), m + n]]
    return [centre + gap * (i - (size - 1) / 2) for centre, size in blocks for i in range(int(size))]
