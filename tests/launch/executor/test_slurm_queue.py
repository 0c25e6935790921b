"""What the queue says of jobs on record, with Slurm's programs played by scripts."""

import os

import pytest

from jaxgpt.errors import UserError
from jaxgpt.launch.executor.base import Job
from jaxgpt.launch.executor.slurm_files import Attempt, Submitted, attempt_path, job_path, read_submitted, write
from jaxgpt.launch.executor.slurm_queue import GONE, UNKNOWN, alive, cancel, clean, end, jobs, look_up, queue

QUEUE = """cat << END
7_0|RUNNING|n0|None
7_1|PENDING||JobArrayTaskLimit
7_2|FAILED|n1|NonZeroExitCode
8|COMPLETING|n1|None
slurm_load_jobs: a warning
END"""


@pytest.fixture
def record(tmp_path):
    def add(name, job):
        write(job_path(tmp_path, name), Submitted(name, job, float(len(name))))

    for name, job in (("a", "7_0"), ("bb", "7_1"), ("ccc", "7_2"), ("dddd", "8"), ("eeeee", "9")):
        add(name, job)
    write(attempt_path(tmp_path, "dddd"), Attempt("dddd", "8", 0, 1, "n1", 1.0, ended=2.0, code=0, final=True))
    return tmp_path


def test_the_queue_is_one_call(programs):
    programs(squeue=QUEUE)
    found = queue()
    assert found == {
        "7_0": Job("7_0", "RUNNING", "n0", "None"),
        "7_1": Job("7_1", "PENDING", "", "JobArrayTaskLimit"),
        "7_2": Job("7_2", "FAILED", "n1", "NonZeroExitCode"),
        "8": Job("8", "COMPLETING", "n1", "None"),
    }
    [call] = programs.calls()
    assert f"--user={os.getuid()}" in call
    assert "--array" in call


def test_jobs_that_wait_or_run_are_shown(programs, record):
    programs(squeue=QUEUE)
    found = jobs(record)  # without the one that failed, the one that recorded its end, and the one that is forgotten
    assert {name: job.id for name, job in found.items()} == {"a": "7_0", "bb": "7_1"}
    assert len(programs.calls()) == 1


def test_without_jobs_on_record_nobody_is_asked(programs, tmp_path):
    programs(squeue=QUEUE)
    assert jobs(tmp_path) == {}
    assert programs.calls() == []


@pytest.mark.parametrize("how", ["failing", "missing", "slow"])
def test_a_queue_that_does_not_answer_is_no_error(programs, record, monkeypatch, how):
    programs(squeue="exec sleep 5" if how == "slow" else "echo broken >&2; exit 1")
    monkeypatch.setattr("jaxgpt.launch.executor.slurm_queue.PATIENCE", 0.2)
    if how == "missing":
        programs.remove("squeue")
    assert queue() is None
    assert {job.state for job in jobs(record).values()} == {UNKNOWN}
    assert set(jobs(record)) == {"a", "bb", "ccc", "eeeee"}


def test_a_forgotten_job_is_looked_up_in_the_accounting(programs):
    assert look_up("9", {}) == Job("9", GONE)
    programs(sacct='echo "CANCELLED by 1000|n1"')
    assert look_up("9", {}) == Job("9", "CANCELLED", "n1", "by 1000")
    assert look_up("9", {"9": Job("9", "TIMEOUT")}) == Job("9", "TIMEOUT")


def test_which_states_are_alive():
    assert all(alive(Job("1", state)) for state in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", UNKNOWN))
    assert not any(alive(Job("1", state)) for state in ("COMPLETED", "CANCELLED", "NODE_FAIL", "PREEMPTED", GONE))


def test_cancelling_is_one_call_and_is_remembered(programs, record):
    programs(scancel="exit 0")
    assert cancel(record, ["a", "dddd", "other"]) == ["a"]
    assert programs.calls() == ["scancel 7_0"]
    first, second = (read_submitted(job_path(record, name)) for name in ("a", "bb"))
    assert first is not None
    assert second is not None
    assert (first.cancelled, second.cancelled) == (True, False)
    assert cancel(record) == ["a", "bb", "ccc", "eeeee"]
    assert programs.calls()[1:] == ["scancel 7_0 7_1 7_2 9"]


def test_ending_jobs_says_what_slurm_says(programs):
    programs(scancel='echo "scancel: error: Kill job error on job id 9: Invalid job id specified" >&2; exit 1')
    end(["9"])  # is over already
    programs(scancel='echo "scancel: error: Kill job error on job id 9: Access/permission denied" >&2; exit 1')
    with pytest.raises(UserError, match=r"^scancel: Kill job error on job id 9: Access/permission denied$"):
        end(["9"])
    end([])
    programs.remove("scancel")
    with pytest.raises(UserError, match="scancel: not found; cancel Slurm jobs where Slurm is installed"):
        end(["9"])


def test_slurms_words_without_its_programs():
    words = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid"
    assert clean(words) == "invalid partition specified: x Batch job submission failed: Invalid"
