"""The one interface between an experiment and whatever executes its runs: this machine, or a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from jaxgpt.config import decode, override, read_yaml
from jaxgpt.errors import ConfigError, nearest
from jaxgpt.launch.task import Listener, Needs, Outcome, Task
from jaxgpt.registry import kinds, slot

Look = Callable[[Task], Literal["free", "busy", "done", "barred"]]
"""Asked before a task is started: `busy` while somebody else executes it, `done` when it needs no execution (any more),
`barred` when it shall have none, nor what comes after it. It may be asked again and again, so it must be quick."""

More = Callable[[int], Sequence[Task]]
"""Asked for more tasks while so many could start at once, and so many at most are wanted. After it had none it is asked
again when a task has ended."""


def free(task: Task) -> Literal["free"]:
    """Nobody else is there."""
    return "free"


def no_more(room: int) -> Sequence[Task]:
    """All tasks are known from the start."""
    return ()


@dataclasses.dataclass(frozen=True)
class Job:
    """What a scheduler says of a task: its own number for it, a state in its own words, where, and why it waits."""

    id: str
    state: str
    node: str = ""
    reason: str = ""


class Executor:
    """Executes tasks. One that was ended from outside (`Outcome.from_outside`: a signal, a lost node, a time limit) is
    tried again, at most `ExecutorConfig.retries` times; one that ended by itself with an error is not."""

    parallel: int  # tasks at a time, at most
    processes: int = 1  # that work on a task together, each started with the same command
    interrupted: bool = False  # whether the last `run` was told to stop

    def run(
        self,
        tasks: Sequence[Task],
        on_event: Listener = lambda event: None,
        look: Look = free,
        more: More = no_more,
    ) -> list[Outcome]:
        """Execute all tasks, each after those it comes after, and wait for them; where one of these failed, it is not
        run. One outcome per task, in the same order; what was not started because of a request to stop has no code.
        Those that `more` adds stand behind, in the order in which they came.

        Call it from the main thread: it takes signals while it works, and hands a request to stop on.
        """
        raise AssertionError("every executor defines run")

    def stop(self, names: Collection[str]) -> None:
        """Ask these tasks to end (SIGTERM, so that they save); they are not tried again. To be called while `run`
        works, by its listener."""
        raise AssertionError("every executor defines stop")


@slot("executor", package="jaxgpt.launch.executor")
@dataclasses.dataclass(frozen=True)
class ExecutorConfig:
    """Where runs execute.

    retries: attempts beyond the first for a run that was ended from outside (killed, out of memory, its node lost, out
      of time); each goes on from its newest checkpoint. A run that failed by itself is not tried again.
    minutes: time limit of one attempt; none where not given.
    """

    retries: int = 2
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ConfigError(f"executor.retries: expected 0 or more, got {self.retries}")
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"executor.minutes: expected more than 0, got {self.minutes:g}")

    def make(self, needs: Needs, directory: Path) -> Executor:
        """The executor. `directory`: where it may keep what it must know the next time. Raises ConfigError where what
        it needs is not there."""
        raise TypeError(f"{type(self).__qualname__} must define make()")

    def at_a_time(self, count: int) -> Self:
        """The same with at most so many runs at a time."""
        raise TypeError(f"{type(self).__qualname__} must define at_a_time()")

    @classmethod
    def jobs(cls, directory: Path) -> Mapping[str, Job]:
        """What the scheduler has of the tasks started from `directory`, by name; nothing where there is no scheduler or
        it does not answer. To be quick where it was never used from there."""
        return {}

    @classmethod
    def cancel(cls, directory: Path, names: Collection[str]) -> None:
        """Have the scheduler forget these tasks, and end those that run."""


def jobs_of(directory: Path) -> dict[str, Job]:
    """What any scheduler has of the tasks started from `directory`, by name: what was started last may not be all."""
    return {name: job for kind in _kinds() for name, job in kind.jobs(directory).items()}


def cancel_jobs(directory: Path, names: Collection[str]) -> None:
    """Have every scheduler forget these tasks, and end those that run."""
    for kind in _kinds():
        kind.cancel(directory, names)


def _kinds() -> Collection[type[ExecutorConfig]]:
    return kinds(ExecutorConfig).values()


def load_executor(name: str, configs: Path, pairs: Sequence[tuple[str, Any]] = ()) -> ExecutorConfig:
    """The executor called `name`: a kind, or a YAML file `configs/cluster/NAME.yaml` or one given by its path, whose
    content is an executor's configuration. `pairs`: overrides as (path, value)."""
    files = {path.stem: path for path in (configs / "cluster").glob("*.yaml")}
    if name.endswith((".yaml", ".yml")):
        raw: Any = read_yaml(name)
    elif name in kinds(ExecutorConfig):
        raw = {"type": name}
    elif name in files:
        raw = read_yaml(files[name])
    else:
        raise ConfigError(f"--executor: none is called {name!r}{nearest(name, {*kinds(ExecutorConfig), *files})}")
    return decode(ExecutorConfig, override(raw, pairs), "executor")


def unstarted(task: Task, state: Literal["done", "barred"]) -> Outcome:
    """The outcome of a task that needs no start, or shall have none."""
    if state == "done":
        return Outcome(task, 0, message="done by another process")
    return Outcome(task, None, message="not started: it has failed or was cancelled")


def check_order(tasks: Sequence[Task]) -> None:
    """Raise ValueError where a task comes after itself or one later in the list: it might wait for ever."""
    for number, task in enumerate(tasks):
        later = [one.name for one in tasks[number:] if one.name in task.after]
        if later:
            raise ValueError(f"task {task.name} comes after {later[0]}, which does not stand before it in the list")


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stop_requests(asked: Callable[[], None]) -> Iterator[None]:
    """Within, a request to stop (Ctrl-C, SIGTERM, a terminal that hangs up) calls `asked`; it does not end the process.

    Raises RuntimeError where it is not the main thread that asks: no other gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("Executor.run must be called from the main thread")

    def handler(number: int, frame: Any) -> None:
        asked()

    # What is ignored stays so: nohup means that the hang-up of a terminal shall not stop the work.
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
