"""What a Slurm job executes for a task: the command as a child, a record of how it goes, and what signals ask for.

Slurm announces the end of a job's time (and, where the cluster is set up so, a preemption) by USR2; a preemption
elsewhere and a cancellation come as TERM, and KILL follows. Either is handed on as SIGTERM, so that the child saves its
state and ends with code 130. Then the job asks Slurm to start it again, unless Slurm is about to end it for reasons of
its own (a cancellation, or a requeue that is under way). A child that ends by itself has ended the task.

Of a run with several processes, rank 0 keeps the record and asks. The others wait until it has: a process that left
earlier would take the step with it (srun's `--kill-on-bad-exit`). One that fails by itself does so on purpose.

This module is imported on the nodes, by submitit, before the child starts; it needs neither JAX nor submitit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from jaxgpt.launch import child
from jaxgpt.launch.executor.slurm_files import Attempt, read_attempt, write
from jaxgpt.launch.task import BUSY, STOPPED

LIVES_ON = ("RUNNING", "SIGNALING")
"""States of a job that Slurm is not ending already."""

AWAKE = 0.1
"""Seconds between looks at the child and at signals."""

PAUSE, PREDECESSOR = 2.0, 120.0
"""Seconds between tries, and to go on trying, where the child found another process at its work: the one before it may
have been killed on another node, where nobody sees that at once."""

ASKING = 30.0
"""Seconds for Slurm to answer."""

RANK_0 = 60.0
"""Seconds beyond the grace that rank 0 may take to ask for another start."""


@dataclasses.dataclass(frozen=True)
class Wrapped:
    """A task as submitit pickles it. `grace`: seconds a child has to save its state; `retries`: how many attempts in a
    row may end without having saved, before the job asks for no further start."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str]
    cwd: Path | None
    record: Path
    grace: float
    retries: int

    def __call__(self) -> None:
        rank, ranks = int(os.environ.get("SLURM_PROCID", 0)), int(os.environ.get("SLURM_NTASKS", 1))
        attempt = self._begin()
        if rank == 0 and not self._failed_elsewhere(attempt):
            write(self.record, attempt)
        try:
            code, asked = self._execute(rank)
            until = time.monotonic() + PREDECESSOR
            while code == BUSY and not asked and time.monotonic() < until:
                time.sleep(PAUSE)
                if not asked:
                    code, asked = self._execute(rank)
        except OSError as error:
            self._finish(attempt, 1, f"could not be started: {error}")
            sys.exit(1)
        # Without having been asked: another process of the run was, and all leave at the same step.
        told = asked or (code == STOPPED and ranks > 1)
        if not (told and code in (STOPPED, -signal.SIGTERM, -signal.SIGKILL)):
            if rank == 0 or code != 0:
                self._finish(attempt, code, "" if rank == 0 else f"process {rank} of {ranks} ended with {code}")
            sys.exit(code if code >= 0 else 128 - code)
        if rank != 0:
            _wait_for_rank_0(self.grace + RANK_0)
        self._ended_by_signal(attempt, code, asked)

    def _begin(self) -> Attempt:
        """The record of this start."""
        before = read_attempt(self.record)
        array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        return Attempt(
            name=self.name,
            job=f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"],
            restart=int(os.environ.get("SLURM_RESTART_COUNT", 0)),
            number=before.number + 1 if before else 1,
            node=os.environ.get("SLURMD_NODENAME", socket.gethostname()),
            started=time.time(),
            before=before.seconds if before else 0.0,
            unsaved=before.unsaved if before else 0,
        )

    def _execute(self, rank: int) -> tuple[int, set[int]]:
        """The exit code of the child, and the signals that asked it to end. It is killed if it does not, `grace`
        seconds later. Raises OSError where it cannot be started."""
        asked: set[int] = set()
        process: subprocess.Popen | None = None

        def send(number: int) -> None:
            if process is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)

        def hand_on(number: int, frame: Any) -> None:
            if not asked:
                late = threading.Timer(self.grace, send, (signal.SIGKILL,))
                late.daemon = True
                late.start()
            asked.add(number)
            send(signal.SIGTERM)

        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, hand_on)
        # Slurm signals every process of a job. What is blocked now stays so in the child, which USR2 would end.
        with _blocked(signal.SIGUSR2):
            process = self._start(rank)
        if asked:  # while it started
            send(signal.SIGTERM)
        # Not process.wait(): a signal that came to another thread (numpy has some) would be heard when the child ends.
        while process.poll() is None:
            time.sleep(AWAKE)
        return process.returncode, asked

    def _start(self, rank: int) -> subprocess.Popen:
        """The child, in a session of its own, so that what is sent to it reaches all that it started."""
        log = self.log if rank == 0 else self.log.with_name(f"{self.log.stem}.{rank}{self.log.suffix}")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                child.tied(self.argv),
                env={**os.environ, **self.env},
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _failed_elsewhere(self, attempt: Attempt) -> bool:
        """Whether another process of this start has recorded the end of the task."""
        there = read_attempt(self.record)
        return there is not None and there.final and there.same_start(attempt)

    def _finish(self, attempt: Attempt, code: int, message: str = "") -> None:
        """Record the end of the task, unless another process of this start did."""
        there = read_attempt(self.record)
        known = there if there is not None and there.same_start(attempt) else attempt
        if not known.final:
            write(self.record, dataclasses.replace(known, code=code, ended=time.time(), final=True, message=message))

    def _ended_by_signal(self, attempt: Attempt, code: int, asked: set[int]) -> NoReturn:
        """Record the end of this attempt, and have Slurm start the job again where that is ours to ask."""
        if self._failed_elsewhere(attempt):
            sys.exit(1)  # and srun ends the rest
        unsaved = 0 if code == STOPPED else attempt.unsaved + 1
        attempt = dataclasses.replace(attempt, code=code, ended=time.time(), unsaved=unsaved)
        write(self.record, attempt)
        state = _state()
        if state in LIVES_ON or (state is None and signal.SIGUSR2 in asked):
            if unsaved > self.retries:
                words = f"had to be killed {self.grace:g} s after it was asked to save, {unsaved} times in a row"
                self._finish(attempt, code, words)
            elif (refused := _requeue(attempt.job)) is not None:
                self._finish(attempt, code, f"was ended by a signal, and Slurm does not start it again: {refused}")
        sys.exit(STOPPED)


@contextlib.contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Within, a signal waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for_rank_0(seconds: float) -> NoReturn:
    """Stay until rank 0 is done and Slurm ends the step. Code 0, so that it is not this end that ends rank 0."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    time.sleep(seconds)
    os._exit(0)


def _state() -> str | None:
    """This job's state, None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--jobs", os.environ["SLURM_JOB_ID"], "--format", "%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASKING, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _requeue(job: str) -> str | None:
    """Ask Slurm to start the job again; its words if it does not."""
    # submitit's own way writes the pickle anew in a signal handler, counts time-outs and knows rank 0 only.
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=ASKING, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
