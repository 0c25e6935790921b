"""The interactive curves of index.html, as plotly figures in plain dictionaries. Their pages need no network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import plotly.io

from jaxgpt.experiment.contrasts import show_interval
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
from jaxgpt.experiment.report.style import GRID, INK, MUTED, Look, looks, looks_in_panels

Trace = dict[str, Any]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def to_div(figure: Trace, name: str) -> str:
    """A figure as a piece of HTML that expects plotly.js on its page; the same figure makes the same text."""
    # Buttons are listed, for plotly's own choice includes one that uploads.
    buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]]
    config = {"displaylogo": False, "responsive": True, "modeBarButtons": buttons}
    return plotly.io.to_html(
        figure,
        config=config,
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        validate=False,
        default_height="520px",
    )


# ------------------------------------------------------------------------------------------------------------- figures


def contexts_figure(report: Report) -> Trace | None:
    """Perplexity, ratio to the training length and bits per byte along context, of every protocol, by a menu."""
    views = _views(report)
    if not views:
        return None
    return _by_menu(
        report,
        [
            _View(name, _context_traces(report, curves), _context_axis(report, curves), _log_axis(curves, y_name))
            for name, y_name, curves in views
        ],
    )


def accuracy_figure(report: Report) -> Trace | None:
    """Shares of right answers along length, of every metric and panel, by a menu."""
    views = []
    for metric in accuracy.metrics(report):
        for panel, variants in accuracy.panels(report, metric).items():
            curves = {variant: points(report.results, variant, metric) for variant in variants}
            lengths = sorted({point.context for curve in curves.values() for point in curve})
            x_axis = _length_axis(lengths, report.results.train_length)
            y_axis = {**_AXIS, "range": [-0.03, 1.1], "title": {"text": "share right"}}
            name = accuracy.title(metric, panel)
            views.append(_View(name, _context_traces(report, curves, digits=3, in_panel=True), x_axis, y_axis))
    return _by_menu(report, views) if views else None


def depth_figure(report: Report) -> Trace | None:
    """Heat maps of what was found by depth and context, those of one accuracy side by side, the accuracy by a menu."""
    found = {name: accuracy.heat_maps(report, name) for name in accuracy.by_depth(report)}
    most = max((len(fields) for _, _, fields in found.values()), default=0)
    views = []
    for name, (depths, contexts, fields) in found.items():
        texts = _tick_texts(contexts, report.results.train_length)
        common = {"type": "heatmap", "zmin": 0, "zmax": 1, "colorscale": "Viridis", "texttemplate": "%{z:.2f}"}
        # Axes that another view needs have a place in this one, too: by default they would cover the figure.
        unused = {"visible": False, "domain": [0.999, 1]}
        traces, axes = [], {f"xaxis{_suffix(number)}": unused for number in range(most)}
        for number, (variant, means) in enumerate(fields.items()):
            z = [[None if math.isnan(value) else value for value in row] for row in means.tolist()]
            here = {"x": texts, "y": [f"{depth}%" for depth in depths], "z": z, "xaxis": f"x{_suffix(number)}"}
            label = report.label_in_panel(variant)
            traces.append({**common, **here, "name": label, "showscale": number == len(fields) - 1})
            domain = [number / len(fields), (number + 1 - 0.06 * (len(fields) > 1)) / len(fields)]
            title = {"text": f"<b>{label}</b><br>tokens of context"}
            axis = {**_AXIS, "visible": True, "type": "category", "domain": domain, "title": title}
            axes[f"xaxis{_suffix(number)}"] = axis
        y_axis = {**_AXIS, "type": "category", "autorange": "reversed", "title": {"text": "depth of the needle"}}
        views.append(_View(accuracy.title(name), traces, axes.pop("xaxis"), y_axis, axes))
    if not views:
        return None
    figure = _by_menu(report, views)
    figure["layout"] |= {"hovermode": "closest", **views[0].more_axes}
    return figure


def _suffix(number: int) -> str:
    """Plotly counts axes `x`, `x2`, `x3`."""
    return str(number + 1) if number else ""


def position_figure(report: Report) -> Trace | None:
    """Loss by position."""
    curves = {v: points(report.results, v, POSITION) for v in report.results.variants}
    if not any(curves.values()):
        return None
    positions = sorted({point.context for curve in curves.values() for point in curve})
    ticks = [p for p in positions if p & (p - 1) == 0 or p == report.results.train_length] or positions
    x_axis = _log2_axis(ticks, report.results.train_length, "position in the window (tokens)")
    y_axis = {**_AXIS, "title": {"text": "nats per token"}}
    return {
        "data": _context_traces(report, curves, mode="lines"),
        "layout": _layout(report, x_axis, y_axis),
    }


def training_figure(report: Report) -> Trace | None:
    """Training loss of every run and validation loss over seeds."""
    traces: list[Trace] = []
    tops = []
    for variant in curve_variants(report):
        look = looks(report).get(variant) or Look("#444444", "o", "circle", "-", "solid")
        for number, curve in enumerate(curve for curve in report.curves if curve.variant == variant):
            tokens, loss = thinned(curve)
            tops += loss[max(1, len(loss) // 50) :][:1]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": tokens,
                    "y": loss,
                    "name": report.label(variant),
                    "legendgroup": variant,
                    "showlegend": number == 0,
                    "opacity": 0.55,
                    "line": {"color": look.colour, "width": 1.2},
                    "hovertemplate": f"{report.label(variant)} seed {curve.seed}: %{{y:.3f}}<extra></extra>",
                }
            )
        checks = validation(report, variant)
        text = [f"{report.label(variant)} validation {show_interval(interval)}" for _, interval in checks]
        if checks:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [tokens for tokens, _ in checks],
                    "y": [interval.mean for _, interval in checks],
                    "text": text,
                    "name": f"{report.label(variant)}, validation",
                    "legendgroup": variant,
                    "showlegend": False,
                    "marker": {
                        "color": look.colour,
                        "symbol": look.symbol,
                        "size": 9,
                        "line": {"color": "white", "width": 1},
                    },
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
    if not traces:
        return None
    y_axis = {**_AXIS, "title": {"text": "nats per token"}}
    if tops:
        lowest = min(value for trace in traces for value in trace["y"])
        y_axis["range"] = [lowest - 0.05 * (max(tops) - lowest), max(tops)]
    layout = _layout(report, {**_AXIS, "title": {"text": "training tokens"}, "rangemode": "tozero"}, y_axis)
    layout["shapes"], layout["annotations"] = [], []
    layout["hovermode"] = "closest"
    return {"data": traces, "layout": layout}


# --------------------------------------------------------------------------------------------------------------- parts


@dataclasses.dataclass(frozen=True)
class _View:
    """What one entry of a menu shows."""

    name: str
    traces: list[Trace]
    x_axis: Trace
    y_axis: Trace
    more_axes: Trace = dataclasses.field(default_factory=dict)


def _by_menu(report: Report, views: Sequence[_View]) -> Trace:
    """A figure that shows the first view, and the others by a menu."""
    traces = [{**trace, "visible": number == 0} for number, view in enumerate(views) for trace in view.traces]
    menu, start = [], 0
    for view in views:
        end = start + len(view.traces)
        visible = [start <= i < end for i in range(len(traces))]
        axes = {"yaxis": view.y_axis, "xaxis": view.x_axis, **view.more_axes, **_mark_length(report, view.x_axis)}
        menu.append({"label": view.name, "method": "update", "args": [{"visible": visible}, axes]})
        start = end
    layout = _layout(report, views[0].x_axis, views[0].y_axis)
    layout["margin"]["t"] = 64
    box = {"x": 0, "y": 1.04, "xanchor": "left", "yanchor": "bottom", "bgcolor": "#ffffff", "bordercolor": "#c9d1d9"}
    layout["updatemenus"] = [{"buttons": menu, **box}]
    return {"data": traces, "layout": layout}


_AXIS: Trace = {"gridcolor": GRID, "zeroline": False, "linecolor": MUTED, "tickcolor": GRID, "automargin": True}


def _views(report: Report) -> list[tuple[str, str, dict[str, list[Point]]]]:
    """(name in the menu, name of the y axis, curves)."""
    results = report.results
    everyone = [*results.variants, *results.baselines]
    views = []
    for protocol, name in PROTOCOLS.items():
        nll, bits = f"{protocol}_nll", f"{protocol}_bits_per_byte"
        letter = "R(c)" if protocol == "fixed_target" else "ratio"
        views += [
            (f"{name}: perplexity", "perplexity", {v: exponentials(points(results, v, nll)) for v in everyone}),
            (f"{name}: relative to L", letter, {v: ratios(results, v, nll) for v in results.variants}),
            (f"{name}: bits per byte", "bits per byte", {v: points(results, v, bits) for v in everyone}),
        ]
    return [view for view in views if any(view[2].values())]


def _context_traces(
    report: Report,
    curves: dict[str, list[Point]],
    mode: str = "lines+markers",
    digits: int = 4,
    in_panel: bool = False,
) -> list[Trace]:
    """A band and a line for each variant; the line tells its interval when pointed at."""
    traces: list[Trace] = []
    label_of, look_of = report.label, looks(report)
    if in_panel:
        label_of, look_of = report.label_in_panel, looks_in_panels(report)
    for variant, curve in curves.items():
        if not curve:
            continue
        look, label = look_of[variant], label_of(variant)
        banded = [point for point in curve if point.interval.low is not None]
        common = {"type": "scatter", "legendgroup": variant, "name": label}
        x = [point.context for point in banded]
        traces.append(
            {
                **common,
                "x": x + x[::-1],
                "y": [p.interval.low for p in banded] + [p.interval.high for p in banded][::-1],
                "fill": "toself",
                "fillcolor": look.faint(0.15),
                "line": {"width": 0},
                "mode": "lines",
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
        traces.append(
            {
                **common,
                "x": [point.context for point in curve],
                "y": [point.interval.mean for point in curve],
                "text": [_hover(label, point, digits) for point in curve],
                "mode": mode if look.marker else "lines",
                "line": {"color": look.colour, "width": 2.4, "dash": look.dash},
                "marker": {"symbol": look.symbol, "size": 9, "line": {"color": "white", "width": 1}},
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    return traces


def _hover(label: str, point: Point, digits: int) -> str:
    interval = point.interval
    text = f"<b>{label}</b> {interval.mean:.{digits}g}"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{interval.low:.{digits}g}, {interval.high:.{digits}g}], {interval.count} seeds"


def _context_axis(report: Report, curves: dict[str, list[Point]]) -> Trace:
    contexts = sorted({point.context for curve in curves.values() for point in curve})
    return _log2_axis(contexts, report.results.train_length, "tokens of context")


def _log2_axis(ticks: Sequence[int], length: int, title: str) -> Trace:
    """A logarithmic axis with a tick at each context; plotly has no base 2, but equal ratios look equal in any base."""
    ends = [math.log10(ticks[0]) - 0.04, math.log10(ticks[-1]) + 0.04]
    texts = _tick_texts(ticks, length)
    return {**_AXIS, "type": "log", "range": ends, "tickvals": list(ticks), "ticktext": texts, "title": {"text": title}}


def _tick_texts(ticks: Sequence[int], length: int) -> list[str]:
    return [f"{tick}<br>{in_lengths(tick, length)}" for tick in ticks]


def _length_axis(lengths: Sequence[int], train_length: int) -> Trace:
    if accuracy.far_apart(lengths):
        return _log2_axis(lengths, train_length, "length")
    texts = _tick_texts(lengths, train_length)
    return {**_AXIS, "tickvals": list(lengths), "ticktext": texts, "title": {"text": "length"}}


def _log_axis(curves: dict[str, list[Point]], title: str) -> Trace:
    low, high = limits([curve for curve in curves.values() if curve])
    margin = max((high / low) ** 0.05, 1.01)
    low, high = low / margin, high * margin
    ticks = log_ticks(low, high)
    return {
        **_AXIS,
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
        "title": {"text": title},
    }


def _layout(report: Report, x_axis: Trace, y_axis: Trace) -> Trace:
    return {
        "font": {"family": FONT, "size": 13.5, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "#ffffff",
        "margin": {"l": 64, "r": 16, "t": 24, "b": 60},
        "hovermode": "x unified",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#9aa5b1", "activecolor": INK},
        "hoverlabel": {
            "bgcolor": "#ffffff",
            "bordercolor": "#c9d1d9",
            "font": {"family": FONT, "size": 13, "color": INK},
        },
        "legend": {"x": 1.01, "y": 1, "bgcolor": "rgba(0,0,0,0)"},
        "xaxis": x_axis,
        "yaxis": y_axis,
        **_mark_length(report, x_axis),
    }


def _mark_length(report: Report, x_axis: Trace) -> Trace:
    """A line where training ended, with its name, on an axis of numbers."""
    length, kind = report.results.train_length, x_axis.get("type")
    if kind == "category":
        return {"shapes": [], "annotations": []}
    line = {"color": INK, "width": 1.3, "dash": "dash"}
    shape = {"type": "line", "x0": length, "x1": length, "y0": 0, "y1": 1, "yref": "paper"}
    name = {
        "x": math.log10(length) if kind == "log" else length,
        "y": 1,
        "yref": "paper",
        "text": "training length L",
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "top",
        "xshift": 5,
        "bgcolor": "rgba(255,255,255,0.8)",
        "font": {"size": 12, "color": MUTED},
    }
    return {"shapes": [{**shape, "line": line, "layer": "below"}], "annotations": [name]}
