"""Slurm's queue: what it says of the jobs on record, and ending them. Each question is one bounded call."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from jaxgpt.errors import UserError
from jaxgpt.launch.executor.base import Job
from jaxgpt.launch.executor.slurm_files import (
    Submitted,
    all_submitted,
    attempt_path,
    job_path,
    read_attempt,
    write,
)

ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)
"""The states from which no job comes back by itself."""

GONE, UNKNOWN = "GONE", "UNKNOWN"
"""Not Slurm's states: it no longer knows the job; it did not answer."""

PATIENCE = 30.0
"""Seconds for Slurm to answer."""


def alive(job: Job) -> bool:
    """Whether a job waits, runs, or may come back."""
    return job.state not in ENDED and job.state != GONE


def queue() -> Mapping[str, Job] | None:
    """Every job of this user that Slurm knows, those that ended lately among them, by number or ARRAY_INDEX. None where
    it does not answer."""
    text = _ask("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%N|%r")
    if text is None:
        return None
    lines = [line.strip().split("|", 3) for line in text.splitlines()]
    return {fields[0]: Job(*fields) for fields in lines if len(fields) == 4}


def look_up(job: str, known: Mapping[str, Job]) -> Job:
    """A job that left the queue: from `known` as `queue` gave it, else from the accounting where there is one."""
    if job in known:
        return known[job]
    text = _ask("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job}", "--format=State,NodeList")
    for line in (text or "").splitlines():
        state, _, node = line.partition("|")
        words = state.split()  # CANCELLED by 1000
        if words:
            return Job(job, words[0], node, " ".join(words[1:]))
    return Job(job, GONE)


def jobs(directory: Path) -> dict[str, Job]:
    """The jobs on record that wait or run, by the task's name. Never an exception: where Slurm does not answer, their
    state is UNKNOWN, those that ended without a record among them."""
    waiting = unfinished(directory)
    known = queue() if waiting else {}
    if known is None:
        return {one.name: Job(one.job, UNKNOWN) for one in waiting}
    found = {one.name: known[one.job] for one in waiting if one.job in known}
    return {name: job for name, job in found.items() if alive(job)}


def unfinished(directory: Path) -> list[Submitted]:
    """The jobs on record that have not recorded the end of their tasks."""
    return [one for one in all_submitted(directory) if not is_final(directory, one)]


def is_final(directory: Path, one: Submitted) -> bool:
    """Whether this job has recorded the end of its task."""
    attempt = read_attempt(attempt_path(directory, one.name))
    return attempt is not None and attempt.final and attempt.job == one.job


def cancel(directory: Path, names: Collection[str] | None = None) -> list[str]:
    """End the jobs of these tasks (None: all on record): Slurm sends SIGTERM, upon which they save, and SIGKILL later.
    They are not tried again. Returns the names of those that had not ended. Raises UserError with Slurm's own words."""
    chosen = [one for one in unfinished(directory) if names is None or one.name in names]
    for one in chosen:
        write(job_path(directory, one.name), dataclasses.replace(one, cancelled=True))
    end(one.job for one in chosen)
    return [one.name for one in chosen]


def end(ids: Iterable[str]) -> None:
    """`scancel` in one call. Raises UserError with Slurm's own words; a job that is over already is no error."""
    command = ["scancel", *ids]
    if len(command) == 1:
        return
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except FileNotFoundError:
        raise UserError("scancel: not found; cancel Slurm jobs where Slurm is installed") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"scancel: no answer from Slurm ({error}); try again") from None
    words = [line for line in done.stderr.splitlines() if "Invalid job id" not in line and "already" not in line]
    if done.returncode != 0 and words:
        raise UserError(f"scancel: {clean(' '.join(words))}")


def clean(words: str) -> str:
    """Slurm's words without the names of its programs."""
    for noise in ("sbatch: error: ", "scancel: error: ", "sbatch: "):
        words = words.replace(noise, "")
    return " ".join(words.split())


def _ask(*command: str) -> str | None:
    """What a command prints; None where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
