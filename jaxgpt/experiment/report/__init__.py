"""The report of an experiment: what was measured, what follows, and how to repeat it.

results.csv     every measurement; the same bytes for the same runs
documents.csv   the same by held-out document, where measurements are sums over documents
timings.csv     what a clock measured, apart
about.json      what else the tables hold: variants, training lengths, facts of the runs
verdicts.json   the claims judged
*.png           perplexity against context, loss by position, training curves
report.md       headline verdict first, tables with intervals, figures
index.html      the same with interactive curves, one file that needs no network

and where they are asked for

results.parquet  the rows of results.csv with their types
results.tex      tables of perplexity or accuracy and of the verdicts, for LaTeX with booktabs
*.svg  *.pdf     the figures as vectors
"""

from __future__ import annotations

from jaxgpt.experiment.report.model import Curve, Report
from jaxgpt.experiment.report.saved import read_report
from jaxgpt.experiment.report.write import FORMATS, check_formats, write_report

__all__ = ["FORMATS", "Curve", "Report", "check_formats", "read_report", "write_report"]
