"""Slurm: every task is a job, or an element of a job array, and is followed through the record its job leaves.

Jobs outlive the process that submits them. A request to stop (Ctrl-C, SIGTERM, a terminal that hangs up) only ends the
following; another `run`, on this login node or another, follows the jobs on record and submits what has none.

After a preemption or at its time limit Slurm starts a job again (slurm_job.py): that is no failure and does not count.
A job that was lost otherwise is submitted again, at most `retries` times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from jaxgpt.config import FrozenMapping
from jaxgpt.errors import ConfigError, UserError, from_extra
from jaxgpt.launch.executor import slurm_files as files
from jaxgpt.launch.executor import slurm_queue as slurm
from jaxgpt.launch.executor.base import (
    Executor,
    ExecutorConfig,
    Job,
    Look,
    More,
    check_order,
    free,
    no_more,
    stop_requests,
    unstarted,
)
from jaxgpt.launch.executor.slurm_files import Attempt, Submitted, attempt_path, job_path
from jaxgpt.launch.executor.slurm_job import Wrapped
from jaxgpt.launch.executor.slurm_submit import LARGEST_ARRAY, Options, Refused, submit
from jaxgpt.launch.machine import thread_environment
from jaxgpt.launch.task import BUSY, Event, Listener, Needs, Outcome, Task
from jaxgpt.lease import Locked, locked
from jaxgpt.registry import register

TICK = 0.2
"""Seconds between events while nothing happens."""

AWAY = 120.0
"""Seconds to wait for a Slurm that takes no job while there is none to follow."""


@register("slurm")
@dataclasses.dataclass(frozen=True)
class SlurmConfig(ExecutorConfig):
    """Jobs of a Slurm cluster, in arrays. The folder of the runs must be on a file system that all nodes share.

    minutes: time limit of one start of a job. Slurm starts it again then, and the run goes on; one that comes no step
      and no evaluation further in five starts is put aside.
    partition, account, qos, constraint: as sbatch names them; the cluster's defaults where not given.
    array_parallelism: tasks of one array at a time. What is submitted later (retries, runs that start from others)
      forms arrays of its own.
    nodes: nodes of a run.
    tasks_per_node: processes of a run on each node: one for all its GPUs, or one per GPU.
    gpus_per_node: GPUs of a run on each node; none asked for where not given.
    cpus_per_task: cores of a process; as many as the run has threads where not given.
    memory_gb: memory of a run on each node, in GiB; the partition's default where not given.
    signal_seconds: how long before the time limit a run is asked to save, and may take for it. Slurm may ask up to a
      minute earlier.
    setup: lines of shell before the run, such as `module load cuda`.
    srun_arguments: further arguments of srun.
    additional: further options of sbatch, by name: {exclusive: true, mail-type: FAIL}.
    poll_seconds: seconds between looks at the jobs.
    """

    minutes: float | None = 60.0
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array_parallelism: int = 16
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    memory_gb: float | None = None
    signal_seconds: int = 120
    setup: tuple[str, ...] = ()
    srun_arguments: tuple[str, ...] = ()
    additional: Mapping[str, str | int | float | bool] = FrozenMapping()
    poll_seconds: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "array_parallelism",
            "nodes",
            "tasks_per_node",
            "gpus_per_node",
            "cpus_per_task",
            "signal_seconds",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"executor.{name}: expected 1 or more, got {value}")
        for name in ("memory_gb", "poll_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"executor.{name}: expected more than 0, got {value:g}")
        if self.minutes is None:
            raise ConfigError("executor.minutes: Slurm needs a time limit; a run goes on when it is reached")
        if 60 * self.minutes <= self.signal_seconds + 60:
            raise ConfigError(
                f"executor.minutes: {self.minutes:g} minutes leave no time before the signal {self.signal_seconds} s "
                "ahead, which Slurm may send a minute early; give more minutes or fewer signal_seconds"
            )
        owned = {"array", "signal", "requeue", "dependency", "output", "error", "open-mode"}
        taken = sorted(owned & {name.replace("_", "-") for name in self.additional})
        if taken:
            raise ConfigError(f"executor.additional: {', '.join(taken)} cannot be set: the executor does")

    @property
    def grace(self) -> float:
        """Seconds a run has to save: a little less than Slurm waits, for the job has to ask for its next start."""
        return max(0.8 * self.signal_seconds, self.signal_seconds - 15.0)

    def make(self, needs: Needs, directory: Path) -> Slurm:
        from_extra("submitit", "slurm", "executor: slurm needs", ConfigError)
        if self.gpus_per_node is not None and self.nodes * self.gpus_per_node < needs.devices:
            raise ConfigError(
                f"train.mesh: asks for {needs.devices} devices, and executor.nodes times executor.gpus_per_node is "
                f"{self.nodes * self.gpus_per_node}"
            )
        return Slurm(self, needs, directory)

    def at_a_time(self, count: int) -> Self:
        return dataclasses.replace(self, array_parallelism=count)

    @classmethod
    def jobs(cls, directory: Path) -> Mapping[str, Job]:
        return slurm.jobs(directory.resolve())

    @classmethod
    def cancel(cls, directory: Path, names: Collection[str]) -> None:
        slurm.cancel(directory.resolve(), names)


class Slurm(Executor):
    """Executes tasks as Slurm jobs; `directory` holds what it knows of them."""

    def __init__(self, config: SlurmConfig, needs: Needs, directory: Path, settle: float = 5.0):
        self.config, self.needs = config, needs
        self.directory = directory.resolve()  # a job may work elsewhere
        self.parallel = config.array_parallelism
        self.processes = config.nodes * config.tasks_per_node
        self.settle = settle  # seconds for a record to arrive from a node after its job left the queue
        self._call: _Call | None = None
        self._unwanted: set[str] = set()

    def stop(self, names: Collection[str]) -> None:
        self._unwanted.update(names)
        if self._call is not None:
            self._call.end(one for name, one in self._call.followed.items() if name in names)

    def run(
        self,
        tasks: Sequence[Task],
        on_event: Listener = lambda event: None,
        look: Look = free,
        more: More = no_more,
    ) -> list[Outcome]:
        check_order(tasks)
        self.interrupted, self._unwanted = False, set()
        call = self._call = _Call(self, tasks, on_event, look, more, self._unwanted)
        try:
            with stop_requests(self._asked):
                call.begin()
                call.submit()
                looked = time.monotonic()
                while call.busy and not self.interrupted:
                    on_event(Event("tick"))
                    time.sleep(min(TICK, self.config.poll_seconds))
                    if time.monotonic() - looked >= self.config.poll_seconds:
                        call.poll()
                        call.submit()
                        looked = time.monotonic()
                if self.interrupted:
                    on_event(Event("stopping", message=call.farewell()))
        finally:
            self._call = None
        return call.outcomes()

    def _asked(self) -> None:
        self.interrupted = True


@dataclasses.dataclass
class _Followed:
    """A task whose job is on record."""

    task: Task
    submitted: Submitted
    attempt: Attempt | None = None  # as it was last read
    missing: float | None = None  # since when it is not in the queue


class _Call:
    """One call of `run`: which tasks wait, which are followed, and how the others ended."""

    def __init__(
        self,
        owner: Slurm,
        tasks: Sequence[Task],
        on_event: Listener,
        look: Look,
        more: More,
        unwanted: Collection[str],
    ):
        self.config, self.needs, self.directory = owner.config, owner.needs, owner.directory
        self.settle = owner.settle
        self.tasks = {task.name: task for task in tasks}
        self.on_event, self.look, self.more, self.unwanted = on_event, look, more, unwanted
        self.waiting = dict(self.tasks)
        self.followed: dict[str, _Followed] = {}
        self._over: set[str] = set()  # jobs that will do nothing any more
        self._told: set[str] = set()  # jobs that were told to end
        self._retries: dict[str, int] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._queue: Mapping[str, slurm.Job] | None = None
        self._asked: int | None = None  # how many had ended when there were no more tasks
        self._away: float | None = None  # since when Slurm takes no jobs

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.followed)

    def outcomes(self) -> list[Outcome]:
        return [self._outcomes.get(name, Outcome(task, None)) for name, task in self.tasks.items()]

    def farewell(self) -> str:
        """What to tell who stops following."""
        ids = sorted({one.submitted.job.partition("_")[0] for one in self.followed.values()}, key=int)
        if not ids:
            return "nothing is left in Slurm's queue"
        return (
            f"{len(self.followed)} runs go on in Slurm; the same command follows them again, "
            f"and `scancel {' '.join(ids)}` ends them"
        )

    # ------------------------------------------------------------------------------------------------------- submission

    def begin(self) -> None:
        """Learn which jobs on record are over. Where Slurm does not answer, those without an end are followed."""
        on_record = [one for name in self.tasks if (one := files.read_submitted(job_path(self.directory, name)))]
        self._queue = slurm.queue() if on_record else {}
        for one in on_record:
            if slurm.is_final(self.directory, one) or not self._alive(one.job):
                self._over.add(one.job)

    def _alive(self, job: str) -> bool:
        known = None if self._queue is None else self._queue.get(job, Job(job, slurm.GONE))
        return known is None or slurm.alive(known)

    def submit(self) -> None:
        """Submit what can be, in as few arrays as what the tasks come after allows; follow what somebody else did."""
        self._fill()
        if not self.waiting:
            return
        try:
            with locked(files.home(self.directory) / "jobs", wait=slurm.PATIENCE):
                while ready := self._ready():
                    if not self._submit_all(ready):
                        break
        except Locked:  # somebody else submits; the next look shows what
            return

    def _fill(self) -> None:
        """Take more tasks while fewer are on their way than may run at a time."""
        room = self.config.array_parallelism - len(self.waiting) - len(self.followed)
        if room < 1 or self._asked == len(self._outcomes):
            return
        added = {task.name: task for task in self.more(room)}
        self._asked = None if added else len(self._outcomes)
        self.tasks |= added
        self.waiting |= added

    def _submit_all(self, tasks: list[Task]) -> bool:
        """One array for all tasks that come after the same jobs. Whether all were taken."""
        groups: dict[tuple[str, ...], list[Task]] = {}
        for task in tasks:
            parents = sorted(self.followed[name].submitted.job for name in task.after if name in self.followed)
            groups.setdefault(tuple(parents), []).append(task)
        for parents, members in groups.items():
            for start in range(0, len(members), LARGEST_ARRAY):
                if not self._submit(members[start : start + LARGEST_ARRAY], parents):
                    return False
        return True

    def _ready(self) -> list[Task]:
        """The waiting tasks to submit now: those they come after are done or have jobs. What needs no job ends here."""
        ready = []
        for name, task in list(self.waiting.items()):
            failed = [one for one in task.after if one in self._outcomes and not self._outcomes[one].ok]
            if failed or name in self.unwanted:
                why = f"not run, because {failed[0]} did not succeed" if failed else "stopped on request"
                self._finish(Outcome(task, None, message=why))
            elif any(one in self.waiting for one in task.after):
                continue
            elif (record := self._record(name)) is not None:
                if not record.cancelled:  # one that was cancelled is waited for
                    self._follow(task, record)
                elif not self._alive(record.job):
                    self._over.add(record.job)
                    ready.append(task)
            elif (state := self.look(task)) == "free":
                ready.append(task)
            elif state != "busy":
                self._finish(unstarted(task, state))
        return ready

    def _record(self, name: str) -> Submitted | None:
        """The job on record for a task, unless it is over."""
        record = files.read_submitted(job_path(self.directory, name))
        return record if record is not None and record.job not in self._over else None

    def _submit(self, tasks: list[Task], parents: tuple[str, ...]) -> bool:
        """Submit tasks as one array. Whether Slurm took or refused them for good: false while it cannot answer. Raises
        ConfigError where it refuses the first of a call, UserError where it has not answered in all of `AWAY`."""
        for task in tasks:
            if not self._retries.get(task.name):  # attempts are counted from here
                attempt_path(self.directory, task.name).unlink(missing_ok=True)
        jobs = [self._wrapped(task) for task in tasks]
        try:
            ids = submit(_options(self.config, self.needs), files.home(self.directory) / "submitit", jobs, parents)
        except Refused as error:
            if error.passing:
                self._wait_for_slurm(error)
            elif not self.followed and not self._outcomes:
                raise ConfigError(f"executor: Slurm refuses the jobs: {error}") from None
            else:
                for task in tasks:
                    self._finish(Outcome(task, None, message=f"Slurm refuses the job: {error}"))
            return not error.passing
        self._away = None
        for task, job in zip(tasks, ids, strict=True):
            record = Submitted(task.name, job, time.time(), self._retries.get(task.name, 0))
            files.write(job_path(self.directory, task.name), record)
            self._follow(task, record)
        return True

    def _wait_for_slurm(self, error: Refused) -> None:
        """Slurm takes no job now. Raises UserError when that has lasted, and there is nothing else to wait for."""
        now = time.monotonic()
        self._away = now if self._away is None else self._away
        if not self.followed and now - self._away > AWAY:
            raise UserError(f"executor: Slurm takes no jobs: {error}; the same command tries again") from None

    def _wrapped(self, task: Task) -> Wrapped:
        return Wrapped(
            name=task.name,
            argv=task.argv,
            log=task.log.absolute(),
            env={**thread_environment(self.needs.threads), **task.env},
            cwd=task.cwd,
            record=attempt_path(self.directory, task.name),
            grace=self.config.grace,
            retries=self.config.retries,
        )

    def _follow(self, task: Task, record: Submitted) -> None:
        self.waiting.pop(task.name)
        self._retries.setdefault(task.name, record.retries)
        self.followed[task.name] = _Followed(task, record)

    # -------------------------------------------------------------------------------------------------------- following

    def poll(self) -> None:
        """Read every record, then ask the queue for the jobs that left none: what is final first, so that a job which
        Slurm cancelled because of what it comes after is not judged before that."""
        self._queue = slurm.queue()
        for one in list(self.followed.values()):
            self._read(one)
        for one in list(self.followed.values()):
            if one.task.name in self.followed:  # not taken back meanwhile
                self._look_for(one)

    def _read(self, one: _Followed) -> None:
        """Tell what is new in a task's record."""
        task, attempt = one.task, files.read_attempt(attempt_path(self.directory, one.task.name))
        if attempt is None or attempt.job != one.submitted.job:
            return
        known, one.attempt = one.attempt, attempt
        if not attempt.same_start(known):
            if known is not None:
                code = known.code if known.code is not None else -1
                words = "started again by Slurm"
                self.on_event(Event("again", task, Outcome(task, code, attempt.before, words, known.number)))
            self.on_event(Event("started", task))
        if attempt.final:
            assert attempt.code is not None
            self._ended(one, Outcome(task, attempt.code, attempt.seconds, attempt.message, attempt.number))

    def _look_for(self, one: _Followed) -> None:
        """Judge a task whose job is not in the queue any more and left no end."""
        if self._alive(one.submitted.job):
            one.missing = None
            return
        now = time.monotonic()
        one.missing = now if one.missing is None else one.missing
        if now - one.missing < self.settle or any(name in self.followed for name in one.task.after):
            return
        job = slurm.look_up(one.submitted.job, self._queue or {})
        attempt = one.attempt
        code = attempt.code if attempt is not None and attempt.code is not None else -9
        why = "" if job.reason in ("", "None") else f", {job.reason}"
        words = f"its Slurm job {job.id} ended: {job.state}{why}"
        if attempt is None:
            words += f"; its output: {files.home(self.directory) / 'submitit' / f'{job.id}_0_log.out'}"
        outcome = Outcome(one.task, code, attempt.seconds if attempt else 0.0, words, attempt.number if attempt else 1)
        self._ended(one, outcome, cancelled=job.state == "CANCELLED")

    def _ended(self, one: _Followed, outcome: Outcome, cancelled: bool = False) -> None:
        """A job will do no more: the task has ended, or it waits for another job."""
        name, job = one.task.name, one.submitted.job
        del self.followed[name]
        self._over.add(job)
        record = files.read_submitted(job_path(self.directory, name))
        cancelled = cancelled or (record is not None and record.job == job and record.cancelled)
        if name in self.unwanted:
            outcome = dataclasses.replace(outcome, message="stopped on request")
        elif cancelled and not outcome.ok:
            outcome = dataclasses.replace(outcome, message="its Slurm job was cancelled", cancelled=True)
        elif outcome.code == BUSY:  # who does it is waited for by `look`
            self._take_back(one.task)
            return
        elif outcome.from_outside and self._retries[name] < self.config.retries:
            self._retries[name] += 1
            self._take_back(one.task)
            self.on_event(Event("again", one.task, outcome))
            return
        self._finish(outcome)

    def end(self, followed: Iterable[_Followed]) -> None:
        """Cancel jobs, once each. Where Slurm does not answer they go on: what comes after a failure ends by itself,
        and who stops a task does so again."""
        ids = {one.submitted.job for one in followed} - self._told
        with contextlib.suppress(UserError):
            slurm.end(sorted(ids))
            self._told |= ids

    def _take_back(self, task: Task) -> None:
        """Let a task wait again, and with it all whose jobs wait for its job, which will never succeed."""
        self.waiting[task.name] = task
        below = [one for one in self.followed.values() if task.name in one.task.after]
        self.end(below)
        for one in below:
            del self.followed[one.task.name]
            self._over.add(one.submitted.job)
            self._take_back(one.task)

    def _finish(self, outcome: Outcome) -> None:
        name = outcome.task.name
        self.waiting.pop(name, None)
        self._outcomes[name] = outcome
        self.on_event(Event("ended", outcome.task, outcome))
        if not outcome.ok:
            below = [one for one in self.followed.values() if name in one.task.after]
            self.end(below)
            for one in below:
                del self.followed[one.task.name]
                self._finish(Outcome(one.task, None, message=f"not run, because {name} did not succeed"))


def _options(config: SlurmConfig, needs: Needs) -> Options:
    """What sbatch and srun are told."""
    cpus = config.cpus_per_task or needs.threads
    assert config.minutes is not None
    sbatch = {
        "job_name": "jaxgpt",
        "time": math.ceil(config.minutes),
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
        "nodes": config.nodes,
        "ntasks_per_node": config.tasks_per_node,
        "cpus_per_task": cpus,
        "gpus_per_node": config.gpus_per_node,
        "mem": None if config.memory_gb is None else f"{math.ceil(1024 * config.memory_gb)}M",
        "signal_delay_s": config.signal_seconds,
        "array_parallelism": config.array_parallelism,
    }
    # srun has not taken --cpus-per-task from sbatch since Slurm 22.05.
    srun = ("--kill-on-bad-exit=1", f"--cpus-per-task={cpus}", *config.srun_arguments)
    further = {name.replace("-", "_"): value for name, value in config.additional.items()}
    return Options({name: value for name, value in sbatch.items() if value is not None}, config.setup, srun, further)
