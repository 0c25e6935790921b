"""Ties a task to its launcher, then becomes it: `python -I -S child.py PARENT_PID CPUS COMMAND...`.

A launcher killed with -9 cannot stop its workers, and an orphan would go on writing beside the next launcher's worker.
On Linux the kernel kills this process when the launcher dies (`prctl(PR_SET_PDEATHSIG)`), which holds across `exec`.
This is a program of its own because running Python between fork and exec of a process with threads can deadlock. Where
there is no `prctl`, the lock on the run folder alone keeps a second writer out.

It is started as a file, without site packages, so it imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tied(argv: Sequence[str], cpus: str = "") -> list[str]:
    """The command that becomes `argv`, tied to the process that starts it and pinned to the cores `0,1,...`."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), cpus, *argv]


def tie_to_parent(parent: int) -> None:
    """Have the kernel send SIGKILL when `parent` dies; leave at once if it already has."""
    if sys.platform.startswith("linux"):
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        if prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "prctl")
    if os.getppid() != parent:  # died before prctl: the signal will never come
        sys.exit("the launcher is gone")


def pin(cpus: str) -> None:
    """Restrict this process to the cores `0,1,...`; nothing where the system cannot or the list is empty."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})


def main(arguments: list[str]) -> None:
    parent, cpus, *command = arguments
    tie_to_parent(int(parent))
    pin(cpus)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: cannot be started ({error.strerror})")


if __name__ == "__main__":
    main(sys.argv[1:])
