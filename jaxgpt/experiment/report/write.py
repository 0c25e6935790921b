"""Writing a report to its folder."""

from __future__ import annotations

from pathlib import Path

from jaxgpt.experiment.claims import write_verdicts
from jaxgpt.experiment.report.figures import figures
from jaxgpt.experiment.report.markdown import markdown
from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.report.page import page
from jaxgpt.experiment.report.saved import ABOUT, write_about
from jaxgpt.experiment.results import write_documents, write_results, write_timings
from jaxgpt.experiment.search_tables import TRIALS, write_trials
from jaxgpt.files import write_atomic


def write_report(report: Report, directory: Path) -> Path:
    """Write all files of a report into `directory`, made if missing, and return the path of `index.html`.

    Each file is replaced whole. Figures and trials of an earlier report that this one does not have are removed.

    Raises:
      UserError: two rows measure the same thing.
    """
    write_results(directory / "results.csv", report.results.rows)
    write_documents(directory / "documents.csv", report.documents)
    write_timings(directory / "timings.csv", report.timings)
    write_about(directory / ABOUT, report)
    write_verdicts(directory / "verdicts.json", report.verdicts)
    if report.trials:
        write_trials(directory / TRIALS, report.trials)
    else:
        (directory / TRIALS).unlink(missing_ok=True)
    drawn = figures(report)
    for old in directory.glob("*.png"):
        if old.name not in drawn:
            old.unlink()
    for name, (_, png) in drawn.items():
        write_atomic(directory / name, png)
    write_atomic(directory / "report.md", markdown(report, {name: caption for name, (caption, _) in drawn.items()}))
    write_atomic(directory / "index.html", page(report))
    return directory / "index.html"
