"""The report of an experiment: what was measured, what follows, and how to repeat it.

results.csv     every measurement; the same bytes for the same runs
documents.csv   the same by held-out document, where measurements are sums over documents
timings.csv     what a clock measured, apart
about.json      what else the tables hold: variants, training lengths, facts of the runs
verdicts.json   the claims judged
*.png           perplexity against context, loss by position, training curves
report.md       headline verdict first, tables with intervals, figures
index.html      the same with interactive curves, one file that needs no network
"""

from __future__ import annotations

from jaxgpt.experiment.report.model import Curve, Report
from jaxgpt.experiment.report.saved import read_report
from jaxgpt.experiment.report.write import write_report

__all__ = ["Curve", "Report", "read_report", "write_report"]
