"""Writing a report to its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jaxgpt.errors import ConfigError, nearest
from jaxgpt.experiment.claims import write_verdicts
from jaxgpt.experiment.report.figures import figures
from jaxgpt.experiment.report.latex import latex
from jaxgpt.experiment.report.markdown import markdown
from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.report.page import page
from jaxgpt.experiment.report.parquet import library, parquet
from jaxgpt.experiment.report.saved import ABOUT, write_about
from jaxgpt.experiment.report.style import PICTURES, picture
from jaxgpt.experiment.results import write_documents, write_results, write_timings
from jaxgpt.experiment.search.tables import TRIALS, write_trials
from jaxgpt.files import write_atomic

FORMATS = ("csv", "png", "parquet", "latex", "svg", "pdf")
"""What a report can be written as; the first two always are."""

_PARQUET, _LATEX = "results.parquet", "results.tex"


def check_formats(formats: Iterable[str]) -> None:
    """Raise ConfigError for a format that does not exist, UserError for one whose library is not installed."""
    for one in formats:
        if one not in FORMATS:
            raise ConfigError(f"--export: no format is called {one!r}{nearest(one, FORMATS)}")
        if one == "parquet":
            library()


def write_report(report: Report, directory: Path, formats: Iterable[str] = ()) -> Path:
    """Write all files of a report into `directory`, made if missing, and return the path of `index.html`.

    Each file is replaced whole. Files of an earlier report that this one does not write are removed.

    Args:
      formats: of `FORMATS`, beside CSV and PNG: `parquet` and `latex` for tables, `svg` and `pdf` for every figure.

    Raises:
      ConfigError, UserError: as `check_formats`, before anything is written.
      UserError: two rows measure the same thing.
    """
    wanted = set(formats)
    check_formats(wanted)
    write_results(directory / "results.csv", report.results.rows)
    write_documents(directory / "documents.csv", report.documents)
    write_timings(directory / "timings.csv", report.timings)
    write_about(directory / ABOUT, report)
    write_verdicts(directory / "verdicts.json", report.verdicts)
    if report.trials:
        write_trials(directory / TRIALS, report.trials)
    else:
        (directory / TRIALS).unlink(missing_ok=True)
    tables = {
        _PARQUET: parquet(report.results.rows) if "parquet" in wanted else None,
        _LATEX: latex(report) if "latex" in wanted else None,
    }
    for name, content in tables.items():
        if content is None:
            (directory / name).unlink(missing_ok=True)
        else:
            write_atomic(directory / name, content)
    captions = _write_figures(report, directory, {"png", *wanted})
    write_atomic(directory / "report.md", markdown(report, captions))
    write_atomic(directory / "index.html", page(report))
    return directory / "index.html"


def _write_figures(report: Report, directory: Path, formats: set[str]) -> dict[str, str]:
    """Write every figure in every format; the name of its PNG -> its caption. Of what lies there, pictures go that this
    report does not draw, and those in other formats that were written beside a PNG."""
    drawn = figures(report)
    written = {Path(name).with_suffix(f".{one}") for name in drawn for one in PICTURES if one in formats}
    for old in directory.glob("*.png"):
        for path in (old.with_suffix(f".{one}") for one in PICTURES):
            if Path(path.name) not in written:
                path.unlink(missing_ok=True)
    for name, (_, figure) in drawn.items():
        for one in PICTURES:
            if one in formats:
                write_atomic((directory / name).with_suffix(f".{one}"), picture(figure, one))
    return {name: caption for name, (caption, _) in drawn.items()}
