"""How far every run is, read from the run folders; what a scheduler says of a run stands beside, as a hint."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jaxgpt.errors import UserError
from jaxgpt.experiment.index import Listed
from jaxgpt.experiment.progress import duration
from jaxgpt.launch.executor.base import Job

STYLE = {"running": "cyan", "failed": "bold red", "finished": "green", "interrupted": "yellow", "queued": "magenta"}
ORDER = ("failed", "running", "trained", "interrupted", "queued", "pending", "finished")
"""What comes first where there is no room for all."""

Jobs = Callable[[], Mapping[str, Job]]
"""Asks the scheduler what it has, by name of the run."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One run for people."""

    name: str
    state: str
    step: str
    loss: str
    rate: str
    left: str
    evaluations: str
    node: str
    attempts: str
    message: str

    def cells(self) -> list[Text]:
        words = dataclasses.astuple(self)
        return [Text(word, STYLE.get(self.state, "") if number == 1 else "") for number, word in enumerate(words)]


COLUMNS = ("run", "state", "step", "loss", "tokens/s", "time left", "evaluations", "node", "attempts", "message")


def line(run: Listed, job: Job | None = None) -> Line:
    """A run's state. A run that waits in a scheduler's queue is `queued`."""
    folder, state = run.folder, run.state()
    if state in ("pending", "interrupted") and job is not None:
        state = "queued"
    progress, attempts, held = folder.progress(), folder.attempts(), folder.quarantined()
    message = held.message if held else progress.message or ""
    if state == "queued" and job is not None:
        message = message or f"job {job.id}: {job.reason or job.state}".lower()
    done: Mapping[str, Any] = {}
    if progress.state in ("trained", "finished"):
        try:
            done = folder.evaluations()
        except UserError as error:
            message = message or str(error)
    running = state == "running"
    left = ""
    if running and progress.tokens_per_second and progress.step and progress.steps:
        tokens = progress.tokens / progress.step * (progress.steps - progress.step)
        left = duration(tokens / progress.tokens_per_second)
    return Line(
        name=run.name,
        state=state,
        step=f"{progress.step}/{progress.steps}" if progress.steps else "",
        loss="" if progress.loss is None else f"{progress.loss:.4f}",
        rate=f"{progress.tokens_per_second:,.0f}" if running and progress.tokens_per_second else "",
        left=left,
        evaluations=f"{sum(one in done for one in run.wanted)}/{len(run.wanted)}",
        node=folder.node() or (attempts[-1].host if attempts and state != "finished" else ""),
        attempts=str(len(attempts)) if attempts else "",
        message=message,  # of what is finished, too: that it diverged, or was pruned
    )


def lines(runs: Sequence[Listed], jobs: Mapping[str, Job]) -> list[Line]:
    return [line(run, jobs.get(run.name)) for run in runs]


def table(found: Sequence[Line], room: int | None = None) -> Group:
    """The lines as a table, with a sentence that counts them. `room`: the most lines to show, of the liveliest."""
    shown = list(found)
    if room is not None and len(shown) > room:
        urgent = sorted(range(len(shown)), key=lambda number: (ORDER.index(shown[number].state), number))[
            : max(1, room)
        ]
        shown = [shown[number] for number in sorted(urgent)]
    table = Table()
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for one in shown:
        table.add_row(*one.cells())
    counts = Counter(one.state for one in found)
    words = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    hidden = f"; {len(found) - len(shown)} more not shown" if len(shown) < len(found) else ""
    return Group(table, Text(f"{len(found)} runs: {words}{hidden}"))


def show(runs: Sequence[Listed], jobs: Jobs, console: Console, watch: bool = False, interval: float = 2.0) -> None:
    """Print the table; with `watch` keep it up to date until nothing is running or waiting, or Ctrl-C."""
    found = lines(runs, jobs())
    if not watch:
        console.print(table(found))
        return

    def fitting(found: Sequence[Line]) -> Group:
        return table(found, console.height - 6)

    with Live(fitting(found), console=console, auto_refresh=False) as live:
        while any(one.state in ("running", "queued") for one in found):
            time.sleep(interval)
            found = lines(runs, jobs())
            live.update(fitting(found), refresh=True)
