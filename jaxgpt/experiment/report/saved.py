"""A report read back from its files, to derive its tables and verdicts anew."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from jaxgpt.errors import UserError
from jaxgpt.experiment import looks
from jaxgpt.experiment.claims import Claim, evaluate_claims
from jaxgpt.experiment.documents import DocumentLosses, evaluation_noise
from jaxgpt.experiment.report.model import Report
from jaxgpt.experiment.results import Results, read_documents, read_results, read_timings
from jaxgpt.files import write_atomic

ABOUT = "about.json"
_ELSEWHERE = {"results", "verdicts", "curves", "documents", "noise", "timings"}  # in other files, derived, or not kept
_ADDED_LATER = {"search", "trials"}  # not in files of before
_PLAIN = [field.name for field in dataclasses.fields(Report) if field.name not in _ELSEWHERE]


def write_about(path: Path, report: Report) -> None:
    """What the tables of a report hold beside measurements and timings, as JSON."""
    results = report.results
    about = {name: getattr(report, name) for name in _PLAIN} | {
        "train_length": results.train_length,
        "lengths": {variant: results.length(variant) for variant in results.variants},
        "variants": results.variants,
        "baselines": results.baselines,
        "given": sorted(results.given),
    }
    write_atomic(path, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def read_report(directory: Path, claims: Sequence[Claim]) -> Report:
    """The report in a folder, its verdicts formed anew from `claims`; training curves are not kept.

    Raises:
      UserError: a file is missing or not what `write_report` writes.
    """
    try:
        about = json.loads((directory / ABOUT).read_text(encoding="utf-8"))
        plain = {name: about[name] for name in _PLAIN if name in about or name not in _ADDED_LATER}
        arms = about["train_length"], about["variants"], about["baselines"], about["lengths"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{directory / ABOUT}: cannot be read ({error}); write the report again") from None
    timings, documents = read_timings(directory / "timings.csv"), read_documents(directory / "documents.csv")
    results = Results(read_results(directory / "results.csv"), *arms, timings, about.get("given", ()))
    return Report(
        results=results,
        verdicts=evaluate_claims(claims, results, methods=looks.methods(about["looks"])),
        documents=documents,
        noise=evaluation_noise(claims, DocumentLosses(documents), results),
        timings=timings,
        **plain,
    )
