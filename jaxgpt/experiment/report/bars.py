"""A small picture of one bound: the side the claim is on, the bound, the estimate with its interval. Inline SVG."""

from __future__ import annotations

import math
from html import escape

from jaxgpt.experiment.contrasts import Part, show_interval
from jaxgpt.experiment.report.style import INK, MUTED

_WIDTH, _HEIGHT, _PAD, _MIDDLE = 460, 74, 14, 40


def interval_bar(part: Part, colour: str) -> str:
    """SVG of a part of a rule. Ratios are drawn on a logarithmic axis; what is merely shown has its neutral value
    (ratio 1, difference 0) for a bound and no side."""
    interval = part.interval
    neutral = 1.0 if part.scale == "ratio" else 0.0
    bound = neutral if part.bound is None else part.bound
    low = interval.mean if interval.low is None else interval.low
    high = interval.mean if interval.high is None else interval.high
    ends = [_linear(value, part.scale) for value in (low, high, interval.mean, bound)]
    span = max(max(ends) - min(ends), 1e-6)
    left, right = min(ends) - 0.25 * span, max(ends) + 0.25 * span

    def x(value: float) -> float:
        share = (_linear(value, part.scale) - left) / (right - left)
        return _PAD + (_WIDTH - 2 * _PAD) * min(max(share, 0.0), 1.0)

    unit = f" {part.unit}" if part.unit else ""
    label = f"{part.text} = {show_interval(interval)}{unit}"
    pieces = [
        f'<text x="{_PAD}" y="15" font-size="12.5" fill="{INK}">{escape(label)}</text>',
        f'<rect x="{_PAD}" y="{_MIDDLE - 12}" width="{_WIDTH - 2 * _PAD}" height="24" rx="4" fill="#eef1f4"/>',
    ]
    if part.side is not None:
        start, end = (_PAD, x(bound)) if part.side == "<=" else (x(bound), _WIDTH - _PAD)
        pieces.append(
            f'<rect x="{start:.1f}" y="{_MIDDLE - 12}" width="{end - start:.1f}" height="24" rx="4" fill="#d5ebe4"/>'
        )
    said = f"{part.side} {bound:g}" if part.side else f"{bound:g}"
    pieces += [
        f'<line x1="{x(bound):.1f}" x2="{x(bound):.1f}" y1="{_MIDDLE - 15}" y2="{_MIDDLE + 15}" stroke="{INK}" '
        'stroke-width="1.5" stroke-dasharray="4 3"/>',
        f'<text x="{x(bound):.1f}" y="{_HEIGHT - 6}" font-size="11.5" fill="{MUTED}" text-anchor="middle">'
        f"{escape(said)}</text>",
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{_MIDDLE}" y2="{_MIDDLE}" stroke="{colour}" stroke-width="4" '
        'stroke-linecap="round"/>',
        f'<circle cx="{x(interval.mean):.1f}" cy="{_MIDDLE}" r="5.5" fill="{colour}" stroke="#fff" '
        'stroke-width="1.5"/>',
    ]
    return (
        f'<svg class="bar" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(pieces)}</svg>"
    )


def _linear(value: float, scale: str) -> float:
    return math.log(max(value, 1e-300)) if scale == "ratio" else value
