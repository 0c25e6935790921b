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
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxgpt.launch import child
from jaxgpt.launch.task import Event, Listener, Outcome, Slot, Task

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass
class _Running:
    task: Task
    slot: Slot
    process: subprocess.Popen
    started: float


class Pool:
    """Executes tasks in `slots`, from the main thread: a task lives no longer than the thread that started it."""

    def __init__(self, slots: Sequence[Slot], grace: float = 60.0, interval: float = 0.1):
        if not slots:
            raise ValueError("a pool needs at least one slot")
        self.slots = tuple(slots)
        self.grace = grace  # seconds between SIGTERM and SIGKILL
        self.interval = interval  # seconds between looks at the processes
        self.stops = 0  # requests to stop so far

    @property
    def interrupted(self) -> bool:
        """Whether the last `run` was asked to stop."""
        return self.stops > 0

    def run(self, tasks: Sequence[Task], on_event: Listener = lambda event: None) -> list[Outcome]:
        """Execute all tasks, in order of the list as slots become free and what they come after has succeeded; where
        that failed, they are not run. One outcome per task, in the same order.
        """
        _check_order(tasks)
        self.stops = 0
        waiting, free = list(tasks), list(reversed(self.slots))
        running: list[_Running] = []
        outcomes: dict[int, Outcome] = {}
        names, ended = {task.name for task in tasks}, dict[str, Outcome]()

        def finish(task: Task, outcome: Outcome) -> None:
            outcomes[id(task)] = ended[task.name] = outcome
            on_event(Event("ended", task, outcome))

        def start(task: Task) -> None:
            try:
                running.append(_start(task, free[-1]))
            except OSError as error:
                finish(task, Outcome(task, 1, message=f"could not be started: {error}"))
            else:
                free.pop()
                on_event(Event("started", task))

        with self._signals():
            try:
                stopping: float | None = None
                while waiting or running:
                    if self.stops and stopping is None:
                        stopping = time.monotonic()
                        waiting.clear()
                        _send(running, signal.SIGTERM)
                        on_event(Event("stopping"))
                    if stopping is not None and (self.stops > 1 or time.monotonic() - stopping > self.grace):
                        _send(running, signal.SIGKILL)
                    for task in list(waiting) if not self.stops else ():
                        failed = [name for name in task.after if name in ended and not ended[name].ok]
                        if failed:
                            waiting.remove(task)
                            finish(task, Outcome(task, None, message=f"not run, because {failed[0]} did not succeed"))
                        elif free and not any(name in names and name not in ended for name in task.after):
                            waiting.remove(task)
                            start(task)
                    for one in [one for one in running if one.process.poll() is not None]:
                        running.remove(one)
                        free.append(one.slot)
                        seconds = time.monotonic() - one.started
                        finish(one.task, Outcome(one.task, one.process.returncode, seconds))
                    on_event(Event("tick"))
                    if running:
                        time.sleep(self.interval)
            finally:
                _send(running, signal.SIGKILL)
                for one in running:
                    one.process.wait()
        return [outcomes.get(id(task), Outcome(task, None)) for task in tasks]

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Count requests to stop instead of dying of them, while tasks run."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Pool.run must be called from the main thread")

        def count(number: int, frame: Any) -> None:
            self.stops += 1

        # What is ignored stays so: nohup means that the hang-up of a terminal shall not stop the work.
        heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, count) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _check_order(tasks: Sequence[Task]) -> None:
    """Raise ValueError where a task comes after itself or one later in the list: it might wait for ever."""
    for number, task in enumerate(tasks):
        later = [one.name for one in tasks[number:] if one.name in task.after]
        if later:
            raise ValueError(f"task {task.name} comes after {later[0]}, which does not stand before it in the list")


def _start(task: Task, slot: Slot) -> _Running:
    """Start a task in a session of its own, so that one signal reaches it and all its children."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    cpus = ",".join(map(str, slot.cpus))
    tie = [sys.executable, "-I", "-S", str(Path(child.__file__)), str(os.getpid()), cpus]
    with task.log.open("ab") as log:
        process = subprocess.Popen(
            [*tie, *task.argv],
            env={**os.environ, **slot.env, **task.env},
            cwd=task.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _Running(task, slot, process, time.monotonic())


def _send(running: Sequence[_Running], number: signal.Signals) -> None:
    """Signal the whole process group of every task."""
    for one in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(one.process.pid, number)
