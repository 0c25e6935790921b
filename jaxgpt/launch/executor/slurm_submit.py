"""Hands jobs to sbatch, by submitit (extra `slurm`)."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgpt.errors import ConfigError, first_line, from_extra
from jaxgpt.launch.executor.base import STOP_SIGNALS
from jaxgpt.launch.executor.slurm_job import Wrapped
from jaxgpt.launch.executor.slurm_queue import clean

PASSING = ("contact slurm controller", "timed out", "temporarily", "Connection refused", "try again")
"""What Slurm says while it cannot answer."""

LARGEST_ARRAY = 1000
"""Elements of an array: Slurm's MaxArraySize is 1001 where nobody changed it."""


class Refused(Exception):
    """sbatch took no job. `passing`: whether it may another time."""

    def __init__(self, words: str):
        super().__init__(words)
        self.passing = any(one in words for one in PASSING)


@dataclasses.dataclass(frozen=True)
class Options:
    """What sbatch and srun are told. `sbatch`: submitit's parameters; `additional`: any of sbatch's on top."""

    sbatch: Mapping[str, Any]
    setup: tuple[str, ...]
    srun: tuple[str, ...]
    additional: Mapping[str, Any]


def submit(options: Options, folder: Path, jobs: Sequence[Wrapped], parents: Sequence[str] = ()) -> list[str]:
    """Submit jobs as one array, to start once the jobs `parents` have succeeded; their numbers,
    ARRAY_INDEX each. At most LARGEST_ARRAY.

    Args:
      folder: where submitit keeps its files and the jobs' own output, shared by all nodes.

    Raises:
      ConfigError: submitit or Slurm is not installed.
      Refused: sbatch took none of the jobs, in its own words.
    """
    submitit = from_extra("submitit", "slurm", "executor: slurm needs", ConfigError)
    additional = {"requeue": True, **options.additional}
    if parents:
        additional |= {"dependency": "afterok:" + ":".join(parents), "kill_on_invalid_dep": "yes"}
    try:
        executor = submitit.SlurmExecutor(folder=folder)
    except RuntimeError:
        raise ConfigError(
            "executor: slurm: this machine has no srun; start runs on a login node of the cluster"
        ) from None
    executor.update_parameters(
        **options.sbatch,
        setup=list(options.setup),
        srun_args=list(options.srun),
        stderr_to_stdout=True,
        wckey=None,  # submitit's own, which clusters with accounting by such keys do not know
        additional_parameters=additional,
    )
    with _undisturbed(submitit):
        try:
            return [one.job_id for one in executor.submit_array(jobs)]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            raise Refused(clean(str(error)) or first_line(error)) from None


@contextlib.contextmanager
def _undisturbed(submitit: Any) -> Iterator[None]:
    """Within, a job submitted from a job inherits nothing of that, sbatch does not see Ctrl-C (it could have submitted
    already), and its words go into the error only."""
    conf = os.environ.get("SLURM_CONF")  # where Slurm is, which is no job's
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        with submitit.helpers.clean_env(), contextlib.redirect_stderr(io.StringIO()):
            if conf is not None:
                os.environ["SLURM_CONF"] = conf
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
