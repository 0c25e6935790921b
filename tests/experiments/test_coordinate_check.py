"""The coordinate check: what it measures at small widths, and that its page follows from its numbers."""

import csv

import numpy as np
import pytest

from experiments import coordinate_check
from experiments.coordinate_check import NAMES, QUANTITIES, STEPS, Measured, check, comma_separated, slope, table

FOLDER = coordinate_check.Path(coordinate_check.__file__).parent / "results" / "coordinate_check"
TASK = ("data.type=task", "data.task.type=copy", "data.max_length=8", "model.num_layers=1")
GROWING = ("mixer", "feedforward", "residual")


def read(path):
    with path.open(newline="") as file:
        return [
            Measured(row["parametrisation"], row["quantity"], *(int(row[name]) for name in ("step", "width", "seed")),
                     float(row["size"]))
            for row in csv.DictReader(file)
        ]  # fmt: skip


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGPT_CACHE", str(tmp_path))
    return lambda *settings: check([32, 128], 2, [*TASK, *settings])


def test_activations_grow_with_the_width_and_not_in_mup(rows):
    """At a fixed deviation and rate what layers write goes by about the width itself; the stream has the embeddings in
    it, which do not grow. Products of the head that nothing has aligned yet go by the root, or fall by it."""
    found = rows()
    for step in range(STEPS + 1):
        for quantity, growth in (("mixer", 0.7), ("feedforward", 0.9), ("residual", 0.4)):
            standard, mup = (slope(found, name, quantity, step) for name in NAMES)
            assert abs(mup) < 0.2, (quantity, step)
            assert standard > growth, (quantity, step)
    assert slope(found, "mup", "logits", 0) < -0.2 < 0.3 < slope(found, "standard", "logits", 0)
    base = {name: [row[1:] for row in found if (row.parametrisation, row.width) == (name, 32)] for name in NAMES}
    assert base["mup"] == base["standard"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("train.optimizer.type=muon", "train.learning_rate=0.05"),
        ("model.feedforward.type=moe", "model.feedforward.experts=4", "model.num_kv_heads=2"),
    ],
    ids=["muon", "mixture with shared keys"],
)
def test_nor_do_they_under_another_optimizer_or_in_other_layers(rows, settings):
    found = rows(*settings)
    for quantity in ("mixer", "feedforward"):
        standard, mup = (slope(found, name, quantity, STEPS) for name in NAMES)
        assert abs(mup) < 0.2 < 0.7 < standard, quantity


def test_a_slope_is_the_power_of_the_width():
    made = [
        Measured("mup", "logits", 1, width, seed, noise * width**1.5)
        for width in (8, 16, 64)
        for seed, noise in enumerate((0.5, 2.0))
    ]
    assert slope(made, "mup", "logits", 1) == pytest.approx(1.5)
    assert coordinate_check.curve(made, "mup", "logits", 1)[16] == pytest.approx(64)


def test_the_page_follows_from_the_stored_numbers():
    stored, text = read(FOLDER / "results.csv"), (FOLDER / "README.md").read_text(encoding="utf-8")
    assert table(stored) in text
    assert "\n    python experiments/coordinate_check.py\n" in text
    assert {row.quantity for row in stored} == set(QUANTITIES)
    assert {row.step for row in stored} == set(range(STEPS + 1))


def test_it_writes_a_picture_a_table_and_a_page(tmp_path, monkeypatch, capsys):
    made = [
        Measured(name, quantity, step, width, 0, float(np.exp(-step)) * width**power)
        for name, power in (("standard", 0.5), ("mup", 0.0))
        for quantity in QUANTITIES
        for step in range(STEPS + 1)
        for width in (16, 32)
    ]
    asked = []
    monkeypatch.setattr(coordinate_check, "check", lambda *arguments: asked.append(arguments) or made)
    monkeypatch.setattr(coordinate_check, "prepare_jax", lambda threads: None)  # the tests' pool is running already
    arguments = ["--widths", "32", "16", "--seeds", "1", "--set", "model.num_layers=1", "--out", str(tmp_path / "new")]
    assert coordinate_check.main(arguments) == 0
    assert asked == [([16, 32], 1, ["model.num_layers=1"])]
    assert (tmp_path / "new" / "coordinate_check.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new" / "results.csv").read_text() == comma_separated(made)
    shown = capsys.readouterr().out
    assert "--set model.num_layers=1" in shown
    assert "| logits | standard | +0.50 |" in shown
    assert "| logits | muP | +0.00 |" in shown or "| logits | muP | -0.00 |" in shown


@pytest.mark.parametrize("wrong", [["--widths", "64", "64"], ["--seeds", "0"], ["--set", "model.widht=3"]])
def test_mistakes_are_named(wrong, monkeypatch, capsys):
    monkeypatch.setattr(coordinate_check, "prepare_jax", lambda threads: None)
    with pytest.raises(SystemExit) as stopped:
        coordinate_check.main(wrong)
    assert stopped.value.code in (1, 2)
    said = capsys.readouterr().err
    assert "at least 1" in said or "did you mean 'width'" in said
