"""Colours, markers and dashes that tell variants apart, also in grey and for the colour-blind."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from jaxgpt.experiment.report.model import Report

# Okabe and Ito 2008, without the yellow that vanishes on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D3A9B", "#8C564B")
MARKERS = (
    ("o", "circle"),
    ("s", "square"),
    ("D", "diamond"),
    ("^", "triangle-up"),
    ("v", "triangle-down"),
    ("P", "cross"),
    ("X", "x"),
    ("p", "pentagon"),
)
_DASHES = (("-", "solid"), ("--", "dash"), ("-.", "dashdot"))

INK, MUTED, GRID = "#1f2933", "#66727f", "#e4e8ec"
OUTCOMES = {"supported": "#00735c", "contradicted": "#b83200", "not resolved": "#6b6256", "shown": "#4a6580"}


@dataclasses.dataclass(frozen=True)
class Look:
    """How a variant is drawn, in matplotlib's and plotly's words."""

    colour: str
    marker: str
    symbol: str
    line: str
    dash: str

    def faint(self, opacity: float) -> str:
        """The colour as CSS rgba."""
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{opacity})"


PICTURES: dict[str, dict[str, None]] = {
    # No name of the software and no date inside: they would change the bytes.
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""Formats of figures, and what each leaves out of its metadata."""


def picture(figure: Figure, kind: str) -> bytes:
    """The bytes of a figure's file in one of `PICTURES`, the same for the same figure."""
    buffer = io.BytesIO()
    # Names inside an SVG are random without a salt; journals refuse the fonts that a PDF has by default (type 3).
    with rc_context({"svg.hashsalt": "jaxgpt", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, metadata=PICTURES[kind])
    return buffer.getvalue()


def log2_axis(axes: Axes, ticks: Sequence[int], names: Sequence[str]) -> None:
    """A horizontal axis to base 2 with these ticks and no others."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_major_formatter(FixedFormatter(names))
    axes.xaxis.set_minor_locator(NullLocator())


def looks(report: Report) -> dict[str, Look]:
    """Variant -> look, by the order of the variants; baselines are grey and dotted."""
    return looks_in_order(report.results.variants, report.results.baselines)


def looks_in_order(variants: Iterable[str], baselines: Iterable[str] = ()) -> dict[str, Look]:
    """Name -> look, of variants in the order of a report and of baselines."""
    found = {variant: _look(number) for number, variant in enumerate(variants)}
    return found | {variant: Look("#8a8f98", "", "line-ew", ":", "dot") for variant in baselines}


def looks_in_panels(report: Report) -> dict[str, Look]:
    """Variant -> look, where those of one label, which never meet in a panel, look alike."""
    variants = report.results.variants
    labels = list(dict.fromkeys(map(report.label_in_panel, variants)))
    return {variant: _look(labels.index(report.label_in_panel(variant))) for variant in variants}


def _look(number: int) -> Look:
    marker, symbol = MARKERS[number % len(MARKERS)]
    line, dash = _DASHES[number // len(COLOURS) % len(_DASHES)]
    return Look(COLOURS[number % len(COLOURS)], marker, symbol, line, dash)
