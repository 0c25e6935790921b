"""What people see while runs execute: a bar per run and one for all, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from jaxgpt.experiment.plan import Run
from jaxgpt.launch.task import Event, Outcome

TRAINING_SHARE = 0.8
"""Part of a run's bar that training fills; the rest is evaluation."""


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `7 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def fraction(run: Run) -> tuple[float, str]:
    """How much of a run is done, 0 to 1, and a few words about where it is."""
    progress = run.folder.progress()
    if progress.state == "finished" and run.is_finished():
        return 1.0, "done"
    if progress.state in ("trained", "finished"):
        return TRAINING_SHARE, "evaluating"
    if not progress.steps or not progress.step:
        return 0.0, "starting" if run.kind == "model" else "counting"
    words = f"step {progress.step}/{progress.steps}"
    if progress.loss is not None:
        words += f"  loss {progress.loss:.3f}"
    if progress.tokens_per_second:
        words += f"  {progress.tokens_per_second:,.0f} tokens/s"
    return TRAINING_SHARE * progress.step / progress.steps, words


class Display:
    """Follows an executor through its events. Use as a context manager around `Executor.run`. `total`: how many runs
    there will be, where `add` brings more than there are now."""

    def __init__(self, runs: Sequence[Run], console: Console, interval: float | None = None, total: int = 0):
        self.runs = {run.name: run for run in runs}
        self._expected = total
        self.console = console
        self.interval = (0.5 if console.is_terminal else 30.0) if interval is None else interval
        self._started = time.monotonic()
        self._last = self._started
        self._ended: set[str] = set()
        self._bars: dict[str, TaskID] = {}
        self._done = {name: fraction(run)[0] for name, run in self.runs.items()}
        self._at_start = self._total()
        text, words = TextColumn("{task.description}"), TextColumn("{task.fields[words]}")
        self._live = Progress(text, BarColumn(), words, TimeElapsedColumn(), console=console, transient=True)
        self._overall = self._live.add_task("all runs", total=1.0, words="")

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    @property
    def total(self) -> int:
        return max(self._expected, len(self.runs))

    def add(self, run: Run) -> None:
        """Follow another run, too."""
        self.runs[run.name] = run
        self._done[run.name] = fraction(run)[0]
        self._at_start += self._done[run.name]  # what was there is no gain

    def _total(self) -> float:
        """Runs done, fractions included, as they were when last looked at."""
        return sum(1.0 if name in self._ended else done for name, done in self._done.items())

    def summary(self) -> str:
        """`3/12 runs, 9 min left`; the time from the progress since the start."""
        done, elapsed = self._total(), time.monotonic() - self._started
        text = f"{len(self._ended)}/{self.total} runs"
        gained = done - self._at_start
        if gained > 0.02 and done < self.total:
            text += f", {duration(elapsed / gained * (self.total - done))} left"
        return text

    def on_event(self, event: Event) -> None:
        """The executor's listener."""
        if event.kind == "stopping":
            self.console.print(f"stopping: {event.message}", highlight=False)
        elif event.task is not None and event.kind == "started":
            name = event.task.name
            if name not in self._bars:
                self._bars[name] = self._live.add_task(name, total=1.0, words="starting")
            if not self.console.is_terminal:
                self.console.print(f"{name}: started", highlight=False)
        elif event.task is not None and event.outcome is not None and event.kind == "again":
            words = f"{event.outcome.describe()}; is tried again"
            self.console.print(f"{event.task.name}: {words}", highlight=False)
        elif event.task is not None and event.outcome is not None:
            self._end(event.task.name, event.outcome)
        elif time.monotonic() - self._last >= self.interval:
            self._last = time.monotonic()
            self._refresh()

    def _end(self, name: str, outcome: Outcome) -> None:
        self._ended.add(name)
        if name in self._bars:
            self._live.remove_task(self._bars.pop(name))
        words = f"done in {duration(outcome.seconds)}" if outcome.ok else "did not finish"
        if outcome.code is None:
            words = outcome.describe()
        elif self.runs[name].pruned:
            words = "pruned"
        self.console.print(f"{name}: {words} ({self.summary()})", highlight=False)

    def _refresh(self) -> None:
        speed = 0.0
        for name, bar in self._bars.items():
            done, words = fraction(self.runs[name])
            self._done[name] = done
            speed += self.runs[name].folder.progress().tokens_per_second or 0.0
            self._live.update(bar, completed=done, words=words)
        words = self.summary() + (f", {speed:,.0f} tokens/s" if speed else "")
        self._live.update(self._overall, completed=self._total() / max(1, self.total), words=words)
        if not self.console.is_terminal:
            self.console.print(words, highlight=False)
