from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxgpt.experiment.report import Curve, Report
from jaxgpt.experiment.report.figures import figures, spread
from jaxgpt.experiment.report.style import PICTURES, looks, picture
from jaxgpt.experiment.results import Results

Make = Callable[..., Report]


def pixels(figure: Figure) -> np.ndarray:
    return (matplotlib.image.imread(io.BytesIO(picture(figure, "png")))[..., :3] * 255).round().astype(int)


def has_colour(image: np.ndarray, colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(image - wanted).max(axis=-1) <= 2).sum() > 200)


def test_every_variant_is_drawn_in_its_own_colour(make_report: Make):
    report = make_report()
    drawn = figures(report)
    assert list(drawn) == [
        "perplexity.png",
        "extrapolation.png",
        "perplexity_non_overlapping.png",
        "loss_by_position.png",
        "training.png",
    ]
    image = pixels(drawn["perplexity.png"][1])
    assert image.shape[0] > 600
    assert image.shape[1] > 1000
    for variant in (*report.results.variants, "5-gram"):
        assert has_colour(image, looks(report)[variant].colour), variant
    assert not has_colour(pixels(drawn["extrapolation.png"][1]), looks(report)["5-gram"].colour)
    assert not has_colour(pixels(drawn["training.png"][1]), looks(report)["yarn"].colour), "never trained"
    assert all(caption for caption, _ in drawn.values())


def test_same_results_make_the_same_files(make_report: Make):
    one, other = figures(make_report()), figures(make_report())
    for kind in PICTURES:
        files = [{name: picture(figure, kind) for name, (_, figure) in drawn.items()} for drawn in (one, other)]
        assert files[0] == files[1], kind


def test_one_seed_has_no_band(make_report: Make):
    one, three = figures(make_report(seeds=1)), figures(make_report())
    shades = [len(np.unique(pixels(drawn["perplexity.png"][1]) @ (65536, 256, 1))) for drawn in (one, three)]
    assert shades[0] < shades[1]


def test_a_training_curve_of_one_point_is_drawn(make_report: Make):
    assert "training.png" in figures(make_report(curves=[Curve("rope", 0, [10], [640], [3.5])]))


def test_what_was_not_measured_is_not_drawn(make_report: Make):
    report = make_report(curves=[])
    rows = [row for row in report.results.rows if row.metric == "non_overlapping_nll" and row.context == 128]
    few = dataclasses.replace(report, results=Results(rows, 128))
    assert list(figures(few)) == ["perplexity_non_overlapping.png"]
    diverged = [dataclasses.replace(row, value=900.0 if row.variant == "rope" else row.value) for row in rows]
    assert list(figures(dataclasses.replace(report, results=Results(diverged, 128)))) == [
        "perplexity_non_overlapping.png"
    ]


def test_names_are_pushed_apart_no_further_than_needed():
    assert spread([0.1, 0.5, 0.9], 0.05) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    heights = spread([0.2, 0.21, 0.22, 0.27, 0.8], 0.05)
    assert np.diff(heights).min() >= 0.05 - 1e-9
    assert heights[-1] == pytest.approx(0.8)
    assert spread([], 0.1) == []
