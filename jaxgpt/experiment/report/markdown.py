"""report.md: for reading in a terminal, a repository or an issue."""

from __future__ import annotations

from collections.abc import Mapping

from jaxgpt.experiment.report import accuracy, tables
from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.report.tables import Table


def markdown(report: Report, figures: Mapping[str, str]) -> str:
    """The report as Markdown; `figures` maps file names of pictures beside it to captions."""
    parts = [f"# {report.title or report.experiment}", *_headlines(report)]
    measured = [*accuracy.tables(report), *tables.measured(report)]
    parts += [_table(table) for table in (*measured[:1], *tables.overviews(report))]
    parts += [_figure(name, figures[name]) for name in list(figures)[:2]]
    parts += [_table(table) for table in (tables.verdicts(report), tables.shown(report), tables.gates(report))]
    parts += [_figure(name, figures[name]) for name in list(figures)[2:]]
    chosen = (tables.tuning(report), tables.search(report), tables.trials(report))
    rest = (tables.noise(report), *chosen, tables.runs(report))
    parts += [_table(table) for table in (*rest, *measured[1:])]
    if report.notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in report.notes))
    parts.append(_reproduce(report))
    return "\n\n".join(part for part in parts if part) + "\n"


def _headlines(report: Report) -> list[str]:
    """The first headline claim in full, the others in a line each."""
    lines = []
    for verdict in [one for one in report.verdicts if one.headline]:
        statement = verdict.statement or verdict.claim
        lines.append(f"**{verdict.verdict.upper()}**: {statement} (`{verdict.rule}`: {verdict.reason})")
    return lines[:1] + (["\n".join(f"- {line}" for line in lines[1:])] if lines[1:] else [])


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    lines = [_row(table.columns), "|" + " --- |" * len(table.columns), *(_row(cells) for cells in table.rows)]
    note = f"\n\n{table.note}" if table.note else ""
    return f"## {table.title}\n\n" + "\n".join(lines) + note


def _row(cells) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _figure(name: str, caption: str) -> str:
    return f"![{caption}]({name})\n\n*{caption}*"


def _reproduce(report: Report) -> str:
    lines = ["## How to repeat this"]
    if report.command:
        lines.append(f"```\n{report.command}\n```")
    if report.facts:
        lines.append("\n".join(f"- {name}: {value}" for name, value in report.facts.items()))
    lines.append(
        "`results.csv` holds every measurement behind these numbers; it repeats byte for byte on the same type of "
        "machine with the same versions. `timings.csv` holds what a clock measured, `verdicts.json` the verdicts."
    )
    return "\n\n".join(lines)
