"""index.html: the report as one page with interactive curves. Everything is inside it, plotly.js included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from html import escape

import plotly.offline

from jaxgpt.experiment.claims import Verdict
from jaxgpt.experiment.report import accuracy, interactive, tables
from jaxgpt.experiment.report.bars import interval_bar
from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.report.style import GRID, INK, MUTED, OUTCOMES, looks, looks_in_panels
from jaxgpt.experiment.report.tables import Table

_STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f5f7f9; color: {INK}; font: 16px/1.55 {interactive.FONT}; }}
main {{ max-width: 1120px; margin: 0 auto; padding: 40px 24px 72px; }}
h1 {{ font-size: 1.9rem; line-height: 1.25; margin: 0 0 6px; letter-spacing: -0.01em; }}
h2 {{ font-size: 1.25rem; margin: 44px 0 14px; }}
p {{ margin: 0 0 10px; }}
code {{ font: 0.86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: #edf1f4;
  border-radius: 4px; padding: 1px 5px; overflow-wrap: anywhere; }}
pre {{ background: #1f2933; color: #f5f7f9; border-radius: 10px; padding: 14px 18px; overflow-x: auto; }}
pre code {{ background: none; padding: 0; color: inherit; }}
.muted, .note {{ color: {MUTED}; }}
.note {{ font-size: 0.88rem; margin: 10px 2px 0; }}
.card {{ background: #fff; border: 1px solid {GRID}; border-radius: 14px; padding: 20px 24px; margin: 0 0 14px;
  box-shadow: 0 1px 2px rgba(31, 41, 51, 0.04); }}
.hero {{ border-left: 6px solid var(--tone); margin-top: 26px; }}
.hero .statement {{ font-size: 1.3rem; line-height: 1.4; font-weight: 600; margin: 12px 0 8px; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 14px; }}
.grid .card {{ margin: 0; border-top: 4px solid var(--tone); }}
.claim {{ font-weight: 650; margin: 8px 0 2px; }}
.badge {{ display: inline-block; background: var(--tone); color: #fff; border-radius: 999px; padding: 2px 12px;
  font-size: 0.8rem; font-weight: 650; letter-spacing: 0.02em; white-space: nowrap; }}
.tag {{ display: inline-block; color: {MUTED}; border: 1px solid #c9d1d9; border-radius: 999px; padding: 1px 10px;
  font-size: 0.78rem; margin-left: 6px; }}
.chips {{ display: flex; flex-wrap: wrap; gap: 8px; margin: 14px 0 0; padding: 0; list-style: none;
  font-size: 0.86rem; }}
.chips li {{ background: #fff; border: 1px solid {GRID}; border-radius: 8px; padding: 3px 10px; }}
.reason {{ font-size: 0.88rem; color: {MUTED}; overflow-wrap: anywhere; margin: 6px 0 0; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }}
th {{ text-align: left; font-weight: 600; color: {MUTED}; border-bottom: 1.5px solid #c9d1d9;
  padding: 7px 12px 7px 0; }}
td {{ border-bottom: 1px solid {GRID}; padding: 8px 12px 8px 0; vertical-align: top; }}
tr:last-child td {{ border-bottom: none; }}
.numbers th:not(:first-child), .numbers td:not(:first-child) {{ text-align: right; white-space: nowrap; }}
td:first-child {{ font-weight: 600; white-space: nowrap; }}
td .ci {{ display: block; color: {MUTED}; font-size: 0.82em; font-weight: 400; }}
.dot {{ display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px; }}
details {{ background: #fff; border: 1px solid {GRID}; border-radius: 12px; padding: 12px 20px; margin: 0 0 10px; }}
summary {{ cursor: pointer; font-weight: 600; }}
details[open] summary {{ margin-bottom: 12px; }}
svg.bar {{ display: block; width: 100%; max-width: 520px; height: auto; margin: 10px 0 2px; }}
@media (max-width: 640px) {{ main {{ padding: 24px 14px 48px; }} .card {{ padding: 16px; }} }}
@media print {{ body {{ background: #fff; }} .card {{ box-shadow: none; break-inside: avoid; }} }}
"""


def page(report: Report) -> str:
    """The whole page. The same report makes the same text."""
    title = escape(report.title or report.experiment)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # An empty icon, or the browser would ask for one.
            f'<title>{title}</title><link rel="icon" href="data:,">',
            f"<style>{_STYLE}</style>",
            f"<script>{plotly.offline.get_plotlyjs()}</script>",
            "</head><body><main>",
            _header(report, title),
            *_claims(report),
            _curves(report, "Perplexity against context", interactive.contexts_figure, "contexts"),
            _curves(report, "Accuracy", interactive.accuracy_figure, "accuracy"),
            _curves(report, "Accuracy by depth", interactive.depth_figure, "depths"),
            *_measured(report),
            _curves(report, "Loss by position", interactive.position_figure, "positions"),
            _curves(report, "Training", interactive.training_figure, "training"),
            _section(tables.gates(report), report),
            _section(tables.noise(report), report),
            _section(tables.tuning(report), report),
            _section(tables.search(report), report),
            _section(tables.trials(report), report),
            _section(tables.runs(report), report),
            _notes(report),
            _reproduce(report),
            "</main></body></html>",
            "",
        ]
    )


def _header(report: Report, title: str) -> str:
    facts = "".join(
        f"<li><span class=muted>{escape(str(k))}</span> {escape(str(v))}</li>" for k, v in report.facts.items()
    )
    counts = Counter(verdict.verdict for verdict in report.verdicts)
    badges = " ".join(_badge(outcome, f"{counts[outcome]} ") for outcome in OUTCOMES if counts[outcome])
    name = f'<p class="muted">experiment <code>{escape(report.experiment)}</code></p>'
    return f'<header><h1>{title}</h1>{name}<p>{badges}</p><ul class="chips">{facts}</ul></header>'


def _badge(outcome: str, before: str = "") -> str:
    return f'<span class="badge" style="--tone:{OUTCOMES[outcome]}">{before}{outcome}</span>'


# -------------------------------------------------------------------------------------------------------------- claims


def _claims(report: Report) -> list[str]:
    """The first headline claim large, then every claim in a card of its own."""
    headlines = [verdict for verdict in report.verdicts if verdict.headline]
    first = headlines[:1]
    parts = [_hero(verdict) for verdict in first]
    rest = [verdict for verdict in report.verdicts if verdict not in first]
    rest.sort(key=lambda verdict: verdict.verdict == "shown")
    if rest:
        parts.append(f'<h2>Claims</h2><div class="grid">{"".join(_card(verdict) for verdict in rest)}</div>')
    if report.verdicts:
        parts.append(
            f'<p class="note">{escape(tables.verdicts(report).note)} In the bars the shaded side is what the claim '
            "says, the line its bound, the mark the estimate with its interval.</p>"
        )
    return parts


def _hero(verdict: Verdict) -> str:
    return (
        f'<section class="card hero" style="--tone:{OUTCOMES[verdict.verdict]}">{_badge(verdict.verdict)}'
        f'<span class="tag">headline</span><p class="statement">{escape(verdict.statement or verdict.claim)}</p>'
        f"{_body(verdict)}</section>"
    )


def _card(verdict: Verdict) -> str:
    tag = '<span class="tag">headline</span>' if verdict.headline else ""
    statement = f'<p class="muted">{escape(verdict.statement)}</p>' if verdict.statement else ""
    return (
        f'<section class="card" style="--tone:{OUTCOMES[verdict.verdict]}">{_badge(verdict.verdict)}{tag}'
        f'<p class="claim">{escape(verdict.claim)}</p>{statement}{_body(verdict)}</section>'
    )


def _body(verdict: Verdict) -> str:
    bars = "".join(interval_bar(part, OUTCOMES[verdict.verdict]) for part in verdict.parts)
    details = [escape(verdict.reason)]
    if verdict.verdict != "shown":
        details.append(f"gate: {escape(verdict.gate)}; seeds: {verdict.seeds}")
    if verdict.source:
        details.append(f"literature: {escape(verdict.source)}")
    lines = "".join(f'<p class="reason">{line}</p>' for line in details)
    return f"<p><code>{escape(verdict.rule)}</code></p>{bars}{lines}"


# -------------------------------------------------------------------------------------------------- figures and tables


def _curves(report: Report, title: str, make: Callable[[Report], interactive.Trace | None], name: str) -> str:
    figure = make(report)
    if figure is None:
        return ""
    return f'<h2>{escape(title)}</h2><section class="card">{interactive.to_div(figure, name)}</section>'


def _measured(report: Report) -> list[str]:
    """The primary table and overviews open, the others folded."""
    found = [*accuracy.tables(report), *tables.measured(report)]
    folded = [
        f"<details><summary>{escape(table.title)}</summary>{_table(table, report)}</details>" for table in found[1:]
    ]
    return [*(_section(table, report) for table in (*found[:1], *tables.overviews(report))), *folded]


def _section(table: Table, report: Report) -> str:
    if not table.rows:
        return ""
    return f'<h2>{escape(table.title)}</h2><section class="card">{_table(table, report)}</section>'


def _table(table: Table, report: Report) -> str:
    colours = {report.label_in_panel(variant): look.colour for variant, look in looks_in_panels(report).items()}
    colours |= {report.label(variant): look.colour for variant, look in looks(report).items()}
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    body = []
    for first, *cells in table.rows:
        colour = colours.get(first.removesuffix(f" {tables.FAILS}"))
        dot = f'<span class="dot" style="background:{colour}"></span>' if colour else ""
        body.append(f"<tr><td>{dot}{escape(first)}</td>{''.join(f'<td>{_cell(cell)}</td>' for cell in cells)}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    kind = "" if table.title in ("Runs", "Context gate") else ' class="numbers"'
    rows = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f'<div class="scroll"><table{kind}>{rows}</table></div>{note}'


def _cell(text: str) -> str:
    """An interval goes on a line of its own below its mean."""
    mean, bracket, interval = text.partition(" [")
    return f'{escape(mean)}<span class="ci">[{escape(interval)}</span>' if bracket else escape(text)


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return f'<h2>Notes</h2><section class="card"><ul>{items}</ul></section>'


def _reproduce(report: Report) -> str:
    command = f"<pre><code>{escape(report.command)}</code></pre>" if report.command else ""
    return (
        f'<h2>How to repeat this</h2>{command}<p class="note">Beside this page: <code>results.csv</code> with every '
        "measurement (it repeats byte for byte on the same type of machine with the same versions), "
        "<code>timings.csv</code> with what a clock measured, <code>verdicts.json</code>, the figures as PNG, "
        "and <code>report.md</code>.</p>"
    )
