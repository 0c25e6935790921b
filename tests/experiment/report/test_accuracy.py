"""Accuracy in a report: tables by panel, pictures, and nothing about perplexity where there is none."""

from __future__ import annotations

import dataclasses

import pytest

from jaxgpt.experiment.report import Report, accuracy, tables
from jaxgpt.experiment.report.figures import figures
from jaxgpt.experiment.report.interactive import accuracy_figure, depth_figure
from jaxgpt.experiment.report.markdown import markdown
from jaxgpt.experiment.report.page import page
from jaxgpt.experiment.report.style import looks, picture
from jaxgpt.experiment.results import Results, Row

ARMS = ("copy-nope", "copy-rope", "sorting-nope")


@pytest.fixture
def report() -> Report:
    rows = []
    for seed in range(3):
        for number, arm in enumerate(ARMS):
            for context in (10, 20, 40):
                value = 1 / (1 + number) - 0.01 * seed
                depths = [f"passkey_accuracy_depth_{depth}" for depth in (0, 50, 100)]
                metrics = ["task_exact_match", "task_token_accuracy", *depths]
                rows += [Row("x", arm, seed, metric, context, value, "share") for metric in metrics]
    results = Results(rows, 20, ARMS)
    labels = {arm: "NoPE" if arm.endswith("nope") else "RoPE" for arm in ARMS}
    panels = {arm: "Sorting" if arm.startswith("s") else "Copying" for arm in ARMS}
    return Report("x", "Does it work?", results, [], labels=labels, panels=panels)


def test_a_table_for_every_accuracy_and_panel(report):
    found = accuracy.tables(report)
    names = ["Copying: exact match", "Sorting: exact match", "Copying: token accuracy", "Sorting: token accuracy"]
    assert [table.title for table in found] == names
    assert found[0].columns == ["variant", "10 (L/2)", "20 (L)", "40 (2L)"]
    assert [row[0] for row in found[0].rows] == ["NoPE", "RoPE"]
    assert found[0].rows[1][1] == "0.49 [0.47, 0.51]"


def test_figures_by_length_and_by_depth(report):
    drawn = accuracy.figures(report)
    assert set(drawn) == {"task_exact_match.png", "task_token_accuracy.png", "passkey_accuracy_by_depth.png"}
    files = {name: picture(figure, "png") for name, (_, figure) in drawn.items()}
    assert all(png.startswith(b"\x89PNG") for png in files.values())
    assert drawn["passkey_accuracy_by_depth.png"][0].startswith("Passkey accuracy by depth of the needle")
    again = {name: picture(figure, "png") for name, (_, figure) in accuracy.figures(report).items()}
    assert again == files, "the same results make the same bytes"
    assert set(figures(report)) == set(drawn)


def test_pages_show_it_and_no_perplexity(report):
    text, html = markdown(report, {name: caption for name, (caption, _) in figures(report).items()}), page(report)
    assert "## Copying: exact match" in text
    assert "](passkey_accuracy_by_depth.png)" in text
    assert "erplexity" not in text
    for name in ("accuracy", "depths"):
        assert f'id="{name}"' in html
    assert "Context gate" not in html
    assert not tables.gates(report).rows


def test_interactive_curves_show_a_panel_at_a_time(report):
    figure = accuracy_figure(report)
    assert figure is not None
    names = [button["label"] for button in figure["layout"]["updatemenus"][0]["buttons"]]
    assert names == [table.title for table in accuracy.tables(report)]
    lines = [trace for trace in figure["data"] if "text" in trace]
    assert [trace["name"] for trace in lines[:3]] == ["NoPE", "RoPE", "NoPE"]
    assert [report.label(arm) for arm in ARMS] == list(ARMS), "labels alone would name two of them alike"
    colours = {arm: look.colour for arm, look in looks(report).items()}
    assert len(set(colours.values())) == 3
    assert lines[0]["line"]["color"] == lines[2]["line"]["color"] != lines[1]["line"]["color"]
    assert (lines[1]["x"], lines[1]["y"]) == ([10, 20, 40], [pytest.approx(0.49)] * 3)
    assert figure["layout"]["annotations"][0]["x"] == 20


def test_interactive_heat_maps_stand_side_by_side(report):
    figure = depth_figure(report)
    assert figure is not None
    assert [trace["type"] for trace in figure["data"]] == ["heatmap"] * 3
    assert [trace["xaxis"] for trace in figure["data"]] == ["x", "x2", "x3"]
    ends = [figure["layout"][axis]["domain"] for axis in ("xaxis", "xaxis2", "xaxis3")]
    assert all(0 <= low < high <= 1 for low, high in ends)
    assert ends[0][1] < ends[1][0] < ends[1][1] < ends[2][0]
    assert figure["data"][1]["z"] == [[pytest.approx(0.49)] * 3] * 3
    assert figure["data"][1]["y"] == ["0%", "50%", "100%"]


def test_heat_maps_of_another_accuracy_leave_no_axes_behind(report):
    """Plotly keeps an axis that any trace names: a view must place those of the others, too."""

    def moved(row):
        metric = row.metric if row.variant == "copy-nope" else row.metric.replace("passkey", "needles")
        return dataclasses.replace(row, metric=metric)

    rows = [moved(row) for row in report.results.rows]
    figure = depth_figure(dataclasses.replace(report, results=Results(rows, 20, ARMS)))
    assert figure is not None
    buttons = figure["layout"]["updatemenus"][0]["buttons"]
    assert [button["label"] for button in buttons] == ["Needles accuracy", "Passkey accuracy"]
    seen = {button["label"]: button["args"][1] for button in buttons}
    assert seen["Needles accuracy"]["xaxis2"]["visible"]
    assert not seen["Passkey accuracy"]["xaxis2"]["visible"]
    assert figure["layout"]["xaxis2"] == seen["Needles accuracy"]["xaxis2"]


def test_lengths_far_apart_have_a_logarithmic_axis(report):
    rows = [
        dataclasses.replace(row, context=8 * row.context) if row.context == 40 else row for row in report.results.rows
    ]
    far = dataclasses.replace(report, results=Results(rows, 20, ARMS))
    for one, kind in ((report, None), (far, "log")):
        figure = accuracy_figure(one)
        assert figure is not None
        assert figure["layout"]["xaxis"].get("type") == kind
    scales = [accuracy.figures(one)["task_exact_match.png"][1].axes[0].get_xscale() for one in (report, far)]
    assert scales == ["linear", "log"]
    assert (accuracy.title("task_exact_match"), accuracy.title("task_exact_match", "Copying")) == (
        "Exact match",
        "Copying: exact match",
    )


def test_reports_without_accuracy_have_none(trial):
    report = Report("x", "Does it work?", trial(), [])
    assert accuracy.tables(report) == []
    assert accuracy.figures(report) == {}
    assert accuracy_figure(report) is depth_figure(report) is None
