"""A search as tables, and as CSV."""

import csv

import pytest
from rich.console import Console

from jaxgpt.experiment.search import tables as search_tables
from jaxgpt.experiment.search.tables import best_rows, search_table, trial_rows, write_trials

RATE, LAYERS = "train.learning_rate", "model.num_layers"


def test_the_best_of_every_variant_with_its_cost(toy, some_search):
    searched = some_search(toy.plan(), "finished", "finished", "pruned", "impossible")
    for seen in searched.found[0].trials[:2]:
        seen.run.folder.path.mkdir(parents=True)
        line = '{"step": 4, "tokens": 64, "loss": 3.0, "tokens_per_second": 32}'
        (seen.run.folder.path / "metrics.jsonl").write_text(line + "\n")
    assert best_rows(searched) == [
        {
            "variant": "rope",
            RATE: 0.002,
            LAYERS: 2,
            "loss": 2.9,
            "trials": 4,
            "pruned": 1,
            "diverged": 0,
            "failed": 0,
            "impossible": 1,
            "tokens": 128,
            "seconds": 4,
        }
    ]
    [line] = best_rows(some_search(toy.plan(), "finished", importances={RATE: 0.756, LAYERS: 0.244}))
    assert (line[f"importance of {RATE}"], line[f"importance of {LAYERS}"]) == (0.76, 0.24)
    [line] = best_rows(some_search(toy.plan(), "diverged"))
    assert (line[RATE], line["loss"], line["diverged"]) == (None, None, 1)


def test_every_trial_is_a_line_of_the_csv(toy, some_search, tmp_path):
    searched = some_search(toy.plan(), "finished", "diverged", "impossible")
    write_trials(tmp_path / "report" / "search.csv", trial_rows(searched))
    with (tmp_path / "report" / "search.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(one["trial"], one["loss"], one["state"]) for one in lines] == [
        ("0", "3.0", "finished"),
        ("1", "", "diverged"),
        ("2", "", "impossible"),
    ]
    assert (lines[0][RATE], lines[0][LAYERS]) == ("0.001", "2")
    assert [one["run"] for one in lines] == [*(run.name for run in searched.plan.runs), ""]


def test_a_best_value_at_an_end_is_told(toy, some_search):
    assert search_tables.warnings(some_search(toy.plan(), "finished")) == []
    [warning] = search_tables.warnings(some_search(toy.plan(), *["finished"] * 10))
    assert warning == f"rope: its best {RATE}, 0.01, is at an end of its range; beyond it may lie a better one"
    assert search_tables.warnings(some_search(toy.plan(), "failed")) == []


@pytest.mark.parametrize(
    ("states", "cells"),
    [
        (("finished", "pruned"), ["rope", "0.001", "2", "3.0000", "1 finished, 1 pruned"]),
        (("diverged", "diverged"), ["rope", "-", "-", "-", "2 diverged"]),
    ],
)
def test_what_the_terminal_shows(toy, some_search, capsys, states, cells):
    Console(width=140).print(search_table(some_search(toy.plan(), *states)))
    [line] = [line for line in capsys.readouterr().out.splitlines() if "rope" in line]
    assert [cell.strip() for cell in line.split("│")[1:-1]] == cells
