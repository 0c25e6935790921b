"""A search for people: rows of the report, `search.csv`, and what the terminal shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxgpt.experiment import engine
from jaxgpt.experiment.estimate import estimate, needs_of
from jaxgpt.experiment.progress import duration
from jaxgpt.experiment.search.points import Searched, shown, typical_plan
from jaxgpt.experiment.search.space import Choice
from jaxgpt.experiment.tuning import cost_of
from jaxgpt.files import write_atomic
from jaxgpt.launch.executor.base import ExecutorConfig

TRIALS = "search.csv"


def best_rows(searched: Searched) -> list[dict[str, object]]:
    """A line per variant for the report: its best point, the loss there, what decides, how trials ended, their cost."""
    lines = []
    for one in searched.found:
        line: dict[str, object] = {"variant": one.variant}
        for path in searched.search.space:
            line[path] = one.best.trial.point[path] if one.best else None
            if one.importances:
                line[f"importance of {path}"] = round(one.importances[path], 2)
        line |= {"loss": one.best and one.best.loss, "trials": len(one.trials)}
        line |= {state: one.count(state) for state in ("pruned", "diverged", "failed", "impossible")}
        runs = {seen.run.name: seen.run for seen in one.trials if seen.run is not None}
        costs = [cost_of(run) for run in runs.values()]
        tokens, seconds = sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)
        lines.append({**line, "tokens": tokens, "seconds": round(seconds)})
    return lines


def trial_rows(searched: Searched) -> list[dict[str, object]]:
    """A line per trial: its number, point, state, loss and run."""
    return [
        {
            "variant": one.variant,
            "trial": seen.trial.number,
            **{path: seen.trial.point.get(path) for path in searched.search.space},
            "loss": seen.loss,
            "state": seen.state,
            "run": seen.run.name if seen.run is not None else "",
        }
        for one in searched.found
        for seen in one.trials
    ]


def write_trials(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the lines of `trial_rows` to CSV; a loss that is not there is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def warnings(searched: Searched) -> list[str]:
    """A sentence for every number whose best value is at an end of its range, or nearly."""
    return [
        f"{one.variant}: its best {path}, {shown(one.best.trial.point[path])}, is at an end of its range; beyond it "
        "may lie a better one"
        for one in searched.found
        for path, values in searched.search.space.items()
        if one.best and not isinstance(values, Choice) and values.at_end(one.best.trial.point[path])
    ]


def search_table(searched: Searched) -> Table:
    """The best point of every variant."""
    table = Table(title="best settings", title_justify="left")
    for name in ("variant", *searched.search.space, "loss", "trials"):
        table.add_column(name, justify="left" if name == "variant" else "right", overflow="fold")
    for one in searched.found:
        ends = ", ".join(f"{one.count(state)} {state}" for state in one.states())
        best = one.best
        cells = [shown(best.trial.point[path]) if best else "-" for path in searched.search.space]
        table.add_row(Text(one.variant), *map(Text, cells), f"{best.loss:.4f}" if best else "-", ends)
    return table


def show_search(searched: Searched, executor: ExecutorConfig, console: Console) -> None:
    """What is searched, how far that is, and an estimate of the time that is left."""
    names = ", ".join(one.variant for one in searched.found)
    steps = ", ".join(dict.fromkeys(f"{one.config.train.steps:,}" for one in searched.subjects))
    console.print(Text(f"search: {searched.search.trials} trials of {steps} steps for each of {names}"), soft_wrap=True)
    for path, values in searched.search.space.items():
        console.print(Text(f"  {path}: {values.describe()}"), soft_wrap=True)
    for one in searched.found:
        ends = ", ".join(f"{one.count(state)} {state}" for state in one.states()) or "none yet"
        console.print(Text(f"  {one.variant}: {ends}"), soft_wrap=True)
    typical = typical_plan(searched)
    if typical.runs:
        sizes = engine.prepare(typical)
        at_a_time = executor.make(needs_of(typical, sizes), typical.directory).parallel
        guess = estimate(typical, sizes, typical.runs, at_a_time)
        console.print(f"estimate of the search: {duration(guess.seconds)}, from {guess.basis}", highlight=False)
