"""Forecasts as a table for people: a row for each model."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from jaxgpt.parallel.program import COLLECTIVES
from jaxgpt.parallel.targets import Target
from jaxgpt.train.forecast import Forecast

GIB, GB = 2**30, 10**9

COLUMNS = (
    "model", "mesh", "fits", "memory, GiB", "TFLOPs", "traffic, GB", "network, GB", "least", "step, ms", "bound by",
    "model FLOPs",
)  # fmt: skip

LEGEND = (
    "All of one device and one step. Memory by kind; TFLOPs of matrix products, what is computed again included; "
    "traffic with its own memory; network: sent to others, and the least that dividing parameters so can do with. "
    "Step: the longest of the three at full speed, so no step is faster; model FLOPs: their share of the peak in that "
    "time."
)


def forecast_table(target: Target, forecasts: Mapping[str, Forecast | str]) -> Table:
    """`forecasts`: by the model's name, or why there is none."""
    count = len(target.devices)
    kind = f"{target.hardware.memory / GIB:.0f} GiB, {target.hardware.flops / 1e12:,.0f} TFLOP/s in bfloat16"
    table = Table(title=f"{target.name}: {count} device{'s' if count > 1 else ''} of {kind}", title_justify="left")
    for name in COLUMNS:
        left = name in ("model", "mesh", "memory, GiB", "network, GB", "bound by")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for name, found in forecasts.items():
        if isinstance(found, str):
            table.add_row(name, "", "no", found)
        else:
            table.add_row(name, *_cells(found))
    table.caption, table.caption_justify = LEGEND, "left"
    return table


def _cells(found: Forecast) -> list[str]:
    mesh = " x ".join(f"{size} {axis}" for axis, size in found.mesh.shape.items() if size > 1) or "one device"
    kinds = ", ".join(f"{kind} {size / GIB:.2f}" for kind, size in found.memory.items() if size >= 0.005 * GIB)
    if found.refused:
        return [mesh, "no", f"{found.refused}; of this {kinds}"]
    # Kinds of which hardly anything is sent are in the sum alone.
    parts = [(kind, found.traffic.sent.get(kind, 0.0)) for kind in COLLECTIVES]
    sent = ", ".join(f"{kind} {size / GB:.2f}" for kind, size in parts if size >= 0.01 * max(found.sent, 1.0))
    milliseconds = {name: 1e3 * seconds for name, seconds in found.seconds.items()}
    return [
        mesh,
        "yes" if found.fits else "no",
        f"{found.bytes / GIB:.2f}: {kinds}",
        f"{found.flops / 1e12:.2f}",
        f"{found.traffic.memory / GB:.1f}",
        f"{found.sent / GB:.2f}: {sent}" if found.sent else "-",
        "-" if not found.least else f"{found.least / GB:.2f}",
        f"{1e3 * found.roofline:.1f}",
        " > ".join(
            f"{name} {milliseconds[name]:.1f}" for name in sorted(milliseconds, key=lambda name: -milliseconds[name])
        ),
        f"{found.share:.0%}",
    ]
