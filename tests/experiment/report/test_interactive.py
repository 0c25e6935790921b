from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from jaxgpt.experiment.report import Report
from jaxgpt.experiment.report.interactive import contexts_figure, position_figure, to_div, training_figure
from jaxgpt.experiment.results import Results

Make = Callable[..., Report]


def test_contexts_show_one_view_at_a_time_with_intervals_to_point_at(make_report: Make):
    figure = contexts_figure(make_report())
    assert figure is not None
    buttons = figure["layout"]["updatemenus"][0]["buttons"]
    assert [button["label"] for button in buttons] == [
        f"{protocol}: {what}"
        for protocol in ("Fixed targets", "Non-overlapping windows")
        for what in ("perplexity", "relative to L", "bits per byte")
    ]
    every = [button["args"][0]["visible"] for button in buttons]
    assert all(sum(column) == 1 for column in zip(*every, strict=True)), "each trace belongs to one view"
    assert [trace["visible"] for trace in figure["data"]] == every[0]
    line = next(trace for trace in figure["data"] if trace["name"] == "RoPE" and "text" in trace)
    assert line["x"] == [32, 64, 128, 256, 512, 1024, 2048]
    assert line["text"][2].startswith(f"<b>RoPE</b> {line['y'][2]:.4g} [")
    assert line["text"][2].endswith("3 seeds")
    assert line["y"][2] == pytest.approx(23.7, abs=1.5)


def test_one_seed_has_no_interval_to_point_at(make_report: Make):
    figure = contexts_figure(make_report(seeds=1))
    assert figure is not None
    texts = [text for trace in figure["data"] for text in trace.get("text", [])]
    assert texts
    assert not any("[" in text for text in texts)


def test_positions_and_training(make_report: Make):
    report = make_report()
    positions, training = position_figure(report), training_figure(report)
    assert positions is not None
    assert training is not None
    assert positions["layout"]["xaxis"]["tickvals"] == [16, 32, 64, 128, 256, 512]
    lines = [trace for trace in training["data"] if trace["mode"] == "lines"]
    assert len(lines) == 12, "a line for every run"
    assert sum(trace["showlegend"] for trace in lines) == 4
    marks = [trace for trace in training["data"] if trace["mode"] == "markers"]
    assert [len(trace["x"]) for trace in marks] == [3] * 4


def test_nothing_measured_is_no_figure(make_report: Make):
    empty = dataclasses.replace(make_report(curves=[]), results=Results([], 128))
    assert contexts_figure(empty) is position_figure(empty) is training_figure(empty) is None


def test_divs_repeat_and_hold_no_library(make_report: Make):
    figure = position_figure(make_report())
    assert figure is not None
    div = to_div(figure, "positions")
    assert div == to_div(figure, "positions")
    assert 'id="positions"' in div
    assert len(div) < 100_000
