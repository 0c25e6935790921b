"""A report read back says what was written."""

import json

import pytest

from jaxgpt.errors import UserError
from jaxgpt.experiment.report import read_report, write_report
from jaxgpt.experiment.report.markdown import markdown
from jaxgpt.experiment.results import DocumentLoss


def test_a_report_read_back_derives_the_same_tables_and_verdicts(make_report, tmp_path, claims):
    documents = [DocumentLoss("rope", 0, "fixed_target_nll", 512, d, 30.0 + d, 10) for d in range(6)]
    report = make_report(
        documents=documents, groups={"rope": "a", "alibi": "b"}, panels={"rope": "p"}, looks={"flat": [3]}
    )
    write_report(report, tmp_path)
    again = read_report(tmp_path, claims)
    assert markdown(again, {}) == markdown(report, {})
    assert [one.to_json() for one in again.verdicts] == [one.to_json() for one in report.verdicts]
    assert again.documents == documents
    assert (again.groups, again.panels) == (report.groups, report.panels)


def test_two_looks_are_remembered(make_report, tmp_path, claims):
    write_report(make_report(looks={claim.name: [3, 4] for claim in claims}), tmp_path)
    (headline,) = [one for one in read_report(tmp_path, claims).verdicts if one.claim == "headline"]
    (plain,) = [one for one in make_report().verdicts if one.claim == "headline"]
    assert headline.low < plain.low


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_file_that_is_not_one_is_named(make_report, tmp_path, claims, content):
    write_report(make_report(), tmp_path)
    about = tmp_path / "about.json"
    about.unlink() if content is None else about.write_text(content)
    with pytest.raises(UserError, match=r"about\.json: cannot be read .*; write the report again"):
        read_report(tmp_path, claims)


def test_a_file_of_before_searches_is_read(make_report, tmp_path, claims):
    row = {"variant": "rope", "trial": 0, "train.lr": 0.01, "loss": None, "state": "diverged", "run": "search-rope-1"}
    write_report(make_report(search=[{"variant": "rope", "train.lr": 0.02}], trials=[row]), tmp_path)
    assert read_report(tmp_path, claims).trials == [row]
    about = json.loads((tmp_path / "about.json").read_text())
    before = {name: value for name, value in about.items() if name not in ("search", "trials")}
    (tmp_path / "about.json").write_text(json.dumps(before))
    assert read_report(tmp_path, claims).trials == ()
