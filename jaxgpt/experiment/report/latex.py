"""results.tex: the main tables for a paper, to be `\\input` where the package booktabs is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from jaxgpt.experiment.report import accuracy, tables
from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.report.tables import Table

_HEAD = r"""% \usepackage{booktabs} in the preamble, then \input{results.tex}.
% A table that is too wide: table* in two columns, or sidewaystable of the package rotating."""

_VERDICTS = {"claim": r"p{0.27\linewidth}", "verdict": "l", "rule": r"p{0.29\linewidth}", "estimate": "l", "seeds": "r"}
"""The columns of the verdicts that a page has room for, and how each is set."""

_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "{}$&#_%"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "†": r"\dag{}",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
}


def latex(report: Report) -> str:
    """Accuracy by length and perplexity by context, intervals below means, and the verdicts; one `table` each."""
    measured = [
        accuracy.table(report, metric, panel, variants)
        for metric in accuracy.whole_answers(report)
        for panel, variants in accuracy.panels(report, metric).items()
    ]
    measured += [table for table in tables.measured(report)[:1] if table.columns]
    found = [_float(table, "l" + "r" * (len(table.columns) - 1), _two_lines(table)) for table in measured]
    verdicts = tables.verdicts(report)
    if verdicts.rows:
        kept = [verdicts.columns.index(name) for name in _VERDICTS]
        short = Table(verdicts.title, list(_VERDICTS), [[row[i] for i in kept] for row in verdicts.rows], verdicts.note)
        found.append(_float(short, "".join(_VERDICTS.values()), [_paragraphs(row) for row in short.rows]))
    numbered = [text.replace("LABEL", f"tab:{report.experiment}-{n}") for n, text in enumerate(found, start=1)]
    return "\n\n".join([_HEAD, *numbered]) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX sets it as it is; a minus before a number becomes one. Letters of other alphabets stay, for engines
    that know them."""
    plain = " ".join(text.split()).replace("<=", "≤").replace(">=", "≥")
    escaped = "".join(_SIGNS.get(sign, sign) for sign in plain)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def _float(table: Table, columns: str, rows: Sequence[str]) -> str:
    caption = ". ".join(filter(None, [escape(table.title).rstrip("."), escape(table.note)]))
    lines = [
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{caption}}}",
        r"  \label{LABEL}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {_row(map(escape, table.columns))}",
        r"    \midrule",
        *(f"    {row}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _two_lines(table: Table) -> list[str]:
    """The rows with every interval below its mean."""
    rows = []
    for name, *cells in table.rows:
        means, intervals = zip(*(cell.partition(" [")[::2] for cell in cells), strict=True) if cells else ((), ())
        rows.append(_row([escape(name), *map(escape, means)]))
        if any(intervals):
            small = [rf"\scriptsize {escape(f'[{one}')}" if one else "" for one in intervals]
            rows.append(_row(["", *small]))
    return rows


def _paragraphs(cells: Sequence[str]) -> str:
    set_ragged = [name for name, column in _VERDICTS.items() if column.startswith("p")]
    pairs = zip(_VERDICTS, map(escape, cells), strict=True)
    return _row([rf"\raggedright {cell}" if name in set_ragged else cell for name, cell in pairs])


def _row(cells: Iterable[str]) -> str:
    # After \raggedright a double backslash ends no row, and before a bracket it takes that for its own.
    return " & ".join(cells) + r" \tabularnewline"
