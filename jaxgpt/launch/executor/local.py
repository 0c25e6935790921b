"""A pool of processes on this machine: one process per task, at most one task per slot.

Every task has a process of its own (JAX does not survive a fork, and workers that are reused would share its state), so
a task that fails, however hard, neither stops nor hides the others.

The first Ctrl-C or SIGTERM is handed on as SIGTERM to every task's process group, so that each can save; after `grace`
seconds, or at the second Ctrl-C, what still lives is killed. If the pool itself is killed, so are the tasks (child.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Self

from jaxgpt.errors import ConfigError
from jaxgpt.launch import child
from jaxgpt.launch.executor.base import (
    Executor,
    ExecutorConfig,
    Look,
    More,
    check_order,
    free,
    no_more,
    stop_requests,
    unstarted,
)
from jaxgpt.launch.machine import local_slots
from jaxgpt.launch.task import BUSY, Event, Listener, Needs, Outcome, Slot, Task
from jaxgpt.registry import register

LOOK_AGAIN = 1.0
"""Seconds before a task that somebody else executes is looked at again."""


@register("local")
@dataclasses.dataclass(frozen=True)
class LocalConfig(ExecutorConfig):
    """Processes on this machine, each with cores or accelerators of its own.

    workers: runs at a time; as many as cores, accelerators and memory allow where not given.
    grace: seconds a run has to save its state when it is stopped, before it is killed.
    """

    workers: int | None = None
    grace: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grace < 0:
            raise ConfigError(f"executor.grace: expected 0 or more seconds, got {self.grace:g}")

    def make(self, needs: Needs, directory: Path) -> Pool:
        slots = local_slots(needs.threads, self.workers, needs.memory, needs.devices)
        return Pool(slots, self.grace, retries=self.retries, minutes=self.minutes)

    def at_a_time(self, count: int) -> Self:
        return dataclasses.replace(self, workers=count)


@dataclasses.dataclass
class _Running:
    task: Task
    slot: Slot
    process: subprocess.Popen
    started: float
    ended_by: str = ""  # what we did to it
    told: float | None = None  # when it was told to stop


class Pool(Executor):
    """Executes tasks in `slots`, from the main thread: a task lives no longer than the thread that started it."""

    def __init__(
        self,
        slots: Sequence[Slot],
        grace: float = 60.0,
        interval: float = 0.1,
        retries: int = 0,
        minutes: float | None = None,
    ):
        if not slots:
            raise ValueError("a pool needs at least one slot")
        self.slots = tuple(slots)
        self.parallel = len(self.slots)
        self.grace = grace  # seconds between SIGTERM and SIGKILL
        self.interval = interval  # seconds between looks at the processes
        self.retries = retries
        self.limit = None if minutes is None else 60 * minutes  # seconds of one attempt
        self.stops = 0  # requests to stop so far
        self._running: list[_Running] = []
        self._unwanted: set[str] = set()

    @property
    def interrupted(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.stops > 0

    def stop(self, names: Collection[str]) -> None:
        self._unwanted.update(names)
        _tell([one for one in self._running if one.task.name in names], "stopped on request")

    def run(
        self,
        tasks: Sequence[Task],
        on_event: Listener = lambda event: None,
        look: Look = free,
        more: More = no_more,
    ) -> list[Outcome]:
        self.stops, self._unwanted = 0, set()
        queue = _Queue(tasks, on_event, look, self.retries, more)
        available = list(reversed(self.slots))
        running = self._running = []
        with stop_requests(self._asked):
            try:
                stopping: float | None = None
                while running or not queue.exhausted:
                    if self.stops and stopping is None:
                        stopping = time.monotonic()
                        queue.give_up()
                        _tell(running, "")
                        on_event(Event("stopping", message="runs save their state; Ctrl-C again kills them"))
                    if stopping is not None and (self.stops > 1 or time.monotonic() - stopping > self.grace):
                        _send(running, signal.SIGKILL)
                    self._enforce_limits()
                    while available and (task := queue.next(self._unwanted, len(available))) is not None:
                        try:
                            running.append(_start(task, available[-1]))
                        except OSError as error:
                            queue.finish(Outcome(task, 1, message=f"could not be started: {error}"))
                        else:
                            available.pop()
                            on_event(Event("started", task))
                    for one in [one for one in running if one.process.poll() is not None]:
                        running.remove(one)
                        available.append(one.slot)
                        again = not self.stops and one.task.name not in self._unwanted
                        queue.ended(
                            one.task, one.process.returncode, time.monotonic() - one.started, one.ended_by, again
                        )
                    on_event(Event("tick"))
                    if running or not queue.exhausted:
                        time.sleep(self.interval)
            finally:  # something failed here: what the tasks have done shall not be lost with it
                _tell(running, "")
                until = time.monotonic() + self.grace
                while (
                    any(one.process.poll() is None for one in running) and time.monotonic() < until and self.stops < 2
                ):
                    time.sleep(self.interval)
                _send(running, signal.SIGKILL)
                for one in running:
                    one.process.wait()
        return queue.outcomes()

    def _enforce_limits(self) -> None:
        """Tell those to stop that are out of time, and kill those that were told and did not."""
        now = time.monotonic()
        if self.limit is not None:
            late = [one for one in self._running if one.told is None and now - one.started > self.limit]
            _tell(late, f"out of time after {self.limit / 60:g} minutes")
        _send([one for one in self._running if one.told and now - one.told > self.grace], signal.SIGKILL)

    def _asked(self) -> None:
        self.stops += 1


class _Queue:
    """The tasks of one call: which waits, which has ended and how, and which is to be tried again."""

    def __init__(self, tasks: Sequence[Task], on_event: Listener, look: Look, retries: int, more: More):
        self.on_event, self.look, self.retries, self.more = on_event, look, retries, more
        self.tasks: list[Task] = []
        self.waiting: list[Task] = []
        self._outcomes: dict[str, Outcome] = {}
        self._asked: int | None = None  # how many had ended when there were no more tasks
        self._attempts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._busy_until: dict[str, float] = {}
        self._add(tasks)

    def _add(self, tasks: Sequence[Task]) -> None:
        check_order([*self.tasks, *tasks])
        self.tasks += tasks
        self.waiting += tasks
        self._names = {task.name for task in self.tasks}

    @property
    def exhausted(self) -> bool:
        """Whether nothing waits and nothing more comes, unless a task that runs now brings it."""
        return not self.waiting and self._asked == len(self._outcomes)

    def give_up(self) -> None:
        """Nothing more is started."""
        self.waiting.clear()
        self.more = no_more

    def finish(self, outcome: Outcome) -> None:
        self._outcomes[outcome.task.name] = outcome
        self.on_event(Event("ended", outcome.task, outcome))

    def next(self, unwanted: Collection[str], room: int) -> Task | None:
        """The first task that can start now, no longer waiting, of those there are or of `more`. What needs no start
        ends here."""
        task = self._first(unwanted)
        while task is None and self._asked != len(self._outcomes):
            added = self.more(room)
            if added:
                self._add(added)
                task = self._first(unwanted)
            else:
                self._asked = len(self._outcomes)
        return task

    def _first(self, unwanted: Collection[str]) -> Task | None:
        now = time.monotonic()
        for task in list(self.waiting):
            failed = [name for name in task.after if name in self._outcomes and not self._outcomes[name].ok]
            if failed or task.name in unwanted:
                self.waiting.remove(task)
                why = f"not run, because {failed[0]} did not succeed" if failed else "stopped on request"
                self.finish(Outcome(task, None, message=why))
            elif any(name in self._names and name not in self._outcomes for name in task.after):
                continue
            elif now >= self._busy_until.get(task.name, now):
                state = self.look(task)
                if state == "busy":
                    self._busy_until[task.name] = now + LOOK_AGAIN
                    continue
                self.waiting.remove(task)
                if state == "free":
                    return task
                self.finish(unstarted(task, state))
        return None

    def ended(self, task: Task, code: int, seconds: float, message: str, again: bool) -> None:
        """A process has ended: the task has, too, or it waits again."""
        if code == BUSY and again:
            self._busy_until[task.name] = time.monotonic() + LOOK_AGAIN
            self.waiting.insert(0, task)
            return
        attempts = self._attempts[task.name] = self._attempts.get(task.name, 0) + 1
        total = self._seconds[task.name] = self._seconds.get(task.name, 0.0) + seconds
        outcome = Outcome(task, code, total, message if code else "", attempts)
        if again and outcome.from_outside and attempts <= self.retries:
            self.waiting.insert(0, task)
            self.on_event(Event("again", task, outcome))
        else:
            self.finish(outcome)

    def outcomes(self) -> list[Outcome]:
        return [self._outcomes.get(task.name, Outcome(task, None)) for task in self.tasks]


def _start(task: Task, slot: Slot) -> _Running:
    """Start a task in a session of its own, so that one signal reaches it and all its children."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    cpus = ",".join(map(str, slot.cpus))
    with task.log.open("ab") as log:
        process = subprocess.Popen(
            child.tied(task.argv, cpus),
            env={**os.environ, **slot.env, **task.env},
            cwd=task.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _Running(task, slot, process, time.monotonic())


def _tell(running: Iterable[_Running], why: str) -> None:
    """Ask tasks to stop; those that were asked already are left alone."""
    for one in running:
        if one.told is None:
            one.told, one.ended_by = time.monotonic(), why
            _send([one], signal.SIGTERM)


def _send(running: Iterable[_Running], number: signal.Signals) -> None:
    """Signal the whole process group of every task."""
    for one in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(one.process.pid, number)
