"""The executor without Slurm: jobs are processes of this test, and the queue is what the test says."""

import dataclasses
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

from jaxgpt.config import decode, encode
from jaxgpt.errors import ConfigError, UserError
from jaxgpt.launch.executor.base import ExecutorConfig, Job, load_executor
from jaxgpt.launch.executor.slurm import Slurm, SlurmConfig
from jaxgpt.launch.executor.slurm_files import Submitted, job_path, read_submitted, write
from jaxgpt.launch.executor.slurm_submit import LARGEST_ARRAY, Refused
from jaxgpt.launch.task import Needs, Task

WRAPPER = "import pickle, sys; job = pickle.load(sys.stdin.buffer); job()"
ONCE_KILLED = """
    import os, sys, time
    if not os.path.exists(sys.argv[1]):
        open(sys.argv[1], "w")
        os.kill(os.getpid(), 9)
        time.sleep(60)  # where it was another that was killed
    print("through")
"""


class Cluster:
    """Takes jobs as `submit` does and starts each as a process, in turn once those it comes after have succeeded."""

    def __init__(self):
        self.arrays = []  # (names, parents, options) as submitted
        self.processes = {}
        self.refusals = []  # what to say to the next calls
        self.answers = True
        self.ended = []

    def submit(self, options, folder, jobs, parents=()):
        if self.refusals:
            raise Refused(self.refusals.pop(0))
        number = len(self.arrays) + 1
        self.arrays.append(([job.name for job in jobs], tuple(parents), options))
        ids = [f"{number}_{index}" for index in range(len(jobs))]
        for parent in parents:
            self.processes[parent].wait()
        for one, job in zip(ids, jobs, strict=True):
            array, _, index = one.partition("_")
            slurm = {"SLURM_JOB_ID": "99", "SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index}
            process = subprocess.Popen([sys.executable, "-c", WRAPPER], stdin=-1, env={**os.environ, **slurm})
            assert process.stdin is not None
            with process.stdin:
                process.stdin.write(pickle.dumps(job))
            self.processes[one] = process
        return ids

    def queue(self):
        if not self.answers:
            return None
        states = {one: "RUNNING" if process.poll() is None else "FAILED" for one, process in self.processes.items()}
        return {one: Job(one, state) for one, state in states.items()}

    def end(self, ids):
        self.ended += ids


@pytest.fixture
def cluster(monkeypatch, programs):
    cluster = Cluster()
    monkeypatch.setattr("jaxgpt.launch.executor.slurm.submit", cluster.submit)
    monkeypatch.setattr("jaxgpt.launch.executor.slurm_queue.queue", cluster.queue)
    monkeypatch.setattr("jaxgpt.launch.executor.slurm_queue.end", cluster.end)
    yield cluster
    for process in cluster.processes.values():
        process.wait(20)


@pytest.fixture
def executor(tmp_path):
    return lambda **fields: Slurm(SlurmConfig(**{"poll_seconds": 0.05, **fields}), Needs(threads=3), tmp_path, 0.1)


def task(tmp_path, name, code, **changes):
    argv = (sys.executable, "-S", "-c", textwrap.dedent(code), str(tmp_path / f"{name}.state"))
    return Task(name, argv, tmp_path / f"{name}.log", **changes)


def test_tasks_are_one_array_with_what_the_config_asks_for(cluster, executor, tmp_path):
    tasks = [task(tmp_path, name, "import os; print(os.environ['NPROC'])") for name in "abc"]
    fields = {"partition": "gpu", "gpus_per_node": 2, "memory_gb": 1.5, "minutes": 12.5, "array_parallelism": 2}
    fields |= {"srun_arguments": ("--mpi=none",), "setup": ("module load cuda",), "additional": {"mail-type": "FAIL"}}
    outcomes = executor(**fields).run(tasks)
    assert all(outcome.ok for outcome in outcomes)
    [(names, parents, options)] = cluster.arrays
    assert (names, parents) == (["a", "b", "c"], ())
    expected = {"partition": "gpu", "gpus_per_node": 2, "mem": "1536M", "time": 13, "array_parallelism": 2}
    assert expected.items() <= options.sbatch.items()
    assert options.sbatch["cpus_per_task"] == 3
    assert "account" not in options.sbatch
    assert options.srun == ("--kill-on-bad-exit=1", "--cpus-per-task=3", "--mpi=none")
    assert (options.setup, options.additional) == (("module load cuda",), {"mail_type": "FAIL"})
    assert (tmp_path / "a.log").read_text() == "3\n"


def test_one_array_for_each_set_of_jobs_to_come_after(cluster, executor, tmp_path):
    names = {"a": (), "b": (), "c": ("a",), "d": ("a", "b"), "e": ("a",), "f": ("done before",)}
    outcomes = executor().run([task(tmp_path, name, "", after=after) for name, after in names.items()])
    assert all(outcome.ok for outcome in outcomes)
    submitted = [(names, parents) for names, parents, _ in cluster.arrays]
    assert submitted == [(["a", "b", "f"], ()), (["c", "e"], ("1_0",)), (["d"], ("1_0", "1_1"))]


def test_an_array_is_not_larger_than_slurm_takes(cluster, executor, tmp_path, monkeypatch):
    assert LARGEST_ARRAY <= 1001
    monkeypatch.setattr("jaxgpt.launch.executor.slurm.LARGEST_ARRAY", 2)
    assert all(outcome.ok for outcome in executor().run([task(tmp_path, name, "") for name in "abc"]))
    assert [names for names, _, _ in cluster.arrays] == [["a", "b"], ["c"]]


def test_what_is_tried_again_takes_along_what_comes_after(cluster, executor, tmp_path):
    tasks = [task(tmp_path, "a", ONCE_KILLED), task(tmp_path, "b", "print('b')", after=("a",))]
    events = []
    outcomes = executor(retries=1).run(tasks, lambda event: event.task and events.append((event.kind, event.task.name)))
    assert (outcomes[0].code, outcomes[0].attempts) == (0, 2)
    assert outcomes[1].ok
    assert ("again", "a") in events
    assert "2_0" in cluster.ended  # b's first job, which waited for a's first
    assert [names for names, _, _ in cluster.arrays] == [["a"], ["b"], ["a"], ["b"]]


def test_what_somebody_else_does_or_did_needs_no_job(cluster, executor, tmp_path):
    answers = {"done": ["done"], "busy": ["busy", "busy", "done"], "free": ["busy", "free"]}
    tasks = [task(tmp_path, name, "print('ran')") for name in answers]
    outcomes = executor().run(tasks, look=lambda task: answers[task.name].pop(0))
    assert [outcome.describe() for outcome in outcomes[:2]] == ["done by another process"] * 2
    assert [names for names, _, _ in cluster.arrays] == [["free"]]
    assert outcomes[2].ok
    tasks = [task(tmp_path, "barred", "print('ran')"), task(tmp_path, "after", "print('ran')", after=("barred",))]
    outcomes = executor().run(tasks, look=lambda task: "barred" if task.name == "barred" else "free")
    assert [outcome.code for outcome in outcomes] == [None, None]


def test_a_task_is_stopped_once(cluster, executor, tmp_path):
    one = executor()
    waits = """
        import os, sys, time
        while not os.path.exists(sys.argv[1]): time.sleep(0.05)
        sys.exit(130)
    """
    ticks = []

    def listener(event):
        ticks.append(event.kind)
        one.stop(["a"])
        if len(ticks) == 5:
            (tmp_path / "a.state").touch()

    [outcome] = one.run([task(tmp_path, "a", waits)], listener)
    assert (outcome.code, outcome.describe()) == (130, "stopped on request")
    assert [one for one in cluster.ended if one] == ["1_0"]


def test_a_job_that_finds_another_at_its_work_is_no_attempt(cluster, executor, tmp_path, monkeypatch):
    wrapped = "import jaxgpt.launch.executor.slurm_job as module; module.PREDECESSOR = 0\n"
    monkeypatch.setitem(globals(), "WRAPPER", wrapped + WRAPPER)
    code = "import os, sys; known = os.path.exists(sys.argv[1]); open(sys.argv[1], 'w'); sys.exit(0 if known else 75)"
    [outcome] = executor(retries=0).run([task(tmp_path, "a", code)])
    assert outcome.ok
    assert len(cluster.arrays) == 2


def test_a_lost_job_is_tried_again(cluster, executor, tmp_path):
    code = ONCE_KILLED.replace("os.getpid()", "os.getppid()")
    [outcome] = executor(retries=1).run([task(tmp_path, "a", code)])
    assert (outcome.code, outcome.attempts) == (0, 2)


def test_a_queue_that_does_not_answer_loses_no_job(cluster, executor, tmp_path):
    cluster.answers = False
    write(job_path(tmp_path, "old"), Submitted("old", "7", 1.0))
    ticks = []

    def listener(event):
        ticks.append(event.kind)
        cluster.answers = len(ticks) > 10

    outcomes = executor().run([task(tmp_path, "old", "print('ran')")], listener)
    assert (outcomes[0].code, len(cluster.arrays)) == (0, 1)  # once Slurm answered that the old job is no more
    assert ticks.count("tick") > 10


def test_what_slurm_refuses_first_is_an_error_and_later_an_end(cluster, executor, tmp_path):
    cluster.refusals = ["Invalid account"]
    with pytest.raises(ConfigError, match="executor: Slurm refuses the jobs: Invalid account"):
        executor().run([task(tmp_path, "a", "")])
    tasks = [task(tmp_path, "a", ONCE_KILLED), task(tmp_path, "b", "")]

    def listener(event):
        if event.kind == "again":
            cluster.refusals = [
                "Unable to contact slurm controller (connect failure)",
                "Job violates accounting policy",
            ]

    outcomes = executor().run(tasks, listener)
    assert outcomes[0].code is None
    assert outcomes[0].describe() == "Slurm refuses the job: Job violates accounting policy"
    assert outcomes[1].ok


def test_a_slurm_that_does_not_answer_is_waited_for_but_not_for_ever(cluster, executor, tmp_path, monkeypatch):
    away = "Unable to contact slurm controller (connect failure)"
    cluster.refusals = [away, away]
    [outcome] = executor().run([task(tmp_path, "a", "")])
    assert outcome.ok
    monkeypatch.setattr("jaxgpt.launch.executor.slurm.AWAY", 0.0)
    cluster.refusals = 100 * [away]
    with pytest.raises(UserError, match=r"Slurm takes no jobs: Unable to contact .*; the same command") as raised:
        executor().run([task(tmp_path, "b", "")])
    assert raised.value.exit_code == 1


def test_a_job_on_record_that_is_over_is_submitted_anew(cluster, executor, tmp_path):
    for expected in ("1_0", "2_0"):
        [outcome] = executor().run([task(tmp_path, "a", "print('ran')")])
        assert (outcome.code, outcome.attempts) == (0, 1)
        record = read_submitted(job_path(tmp_path, "a"))
        assert record is not None
        assert record.job == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": 0}, "executor.nodes: expected 1 or more, got 0"),
        ({"gpus_per_node": 0}, "executor.gpus_per_node: expected 1 or more, got 0"),
        ({"poll_seconds": 0}, "executor.poll_seconds: expected more than 0, got 0"),
        ({"memory_gb": float("inf")}, "executor.memory_gb: expected more than 0, got inf"),
        ({"minutes": None}, "executor.minutes: Slurm needs a time limit"),
        ({"minutes": 3}, "executor.minutes: 3 minutes leave no time before the signal 120 s ahead"),
        ({"additional": {"array": "0-3", "open-mode": "truncate"}}, "executor.additional: array, open-mode cannot be"),
        ({"retries": -1}, "executor.retries: expected 0 or more"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        SlurmConfig(**fields)


def test_a_config_is_read_and_written():
    raw = {"type": "slurm", "partition": "gpu", "setup": ["module load cuda"], "additional": {"exclusive": True}}
    config = decode(ExecutorConfig, raw, "executor")
    assert config == SlurmConfig(partition="gpu", setup=("module load cuda",), additional={"exclusive": True})
    assert decode(ExecutorConfig, encode(config), "executor") == config
    assert config.at_a_time(3) == dataclasses.replace(config, array_parallelism=3)


@pytest.mark.parametrize("name", ["cpu", "gpu", "preemptible"])
def test_the_clusters_that_come_along_can_be_read(name, pytestconfig):
    assert isinstance(load_executor(name, pytestconfig.rootpath / "configs"), SlurmConfig)


def test_a_run_saves_before_slurm_ends_it():
    for seconds in (10, 60, 120, 600):
        assert 0.75 * seconds < SlurmConfig(minutes=60, signal_seconds=seconds).grace < seconds


def test_needs_the_extra_and_enough_devices(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"executor: slurm needs the extra slurm: pip install 'jaxgpt\[slurm\]'"):
        SlurmConfig().make(Needs(), tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", sys)
    with pytest.raises(ConfigError, match=r"train.mesh: asks for 8 devices, and .* is 4"):
        SlurmConfig(nodes=2, gpus_per_node=2).make(Needs(devices=8), tmp_path)
    assert SlurmConfig(nodes=2, gpus_per_node=4).make(Needs(devices=8), tmp_path).parallel == 16


def test_tasks_may_be_added_while_others_run(cluster, executor, tmp_path):
    asked = []

    def more(room):
        asked.append(room)
        return [task(tmp_path, f"later{len(asked)}", "print('later')")] if len(asked) < 3 else []

    slurm = executor(array_parallelism=2)
    outcomes = slurm.run([task(tmp_path, "first", "print('first')")], more=more)
    assert [outcome.task.name for outcome in outcomes] == ["first", "later1", "later2"]
    assert all(outcome.ok for outcome in outcomes)
    assert asked[0] == 1, "as many as are free beside the first"
