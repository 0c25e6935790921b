"""What a job executes, with Slurm's programs played by scripts: records, signals, who asks for another start."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from jaxgpt.launch.executor.slurm_files import Attempt, read_attempt, write
from jaxgpt.launch.executor.slurm_job import Wrapped

WRAPPER = "import pickle, sys; job = pickle.load(open(sys.argv[1], 'rb')); job()"
SAVES = """
    import signal, sys, time
    def save(number, frame):
        print("saved", flush=True)
        sys.exit(130)
    signal.signal(signal.SIGTERM, save)
    print("ready", flush=True)
    time.sleep(60)
"""
STUBBORN = SAVES.replace("sys.exit(130)", "pass").replace("time.sleep(60)", "\n    while True: time.sleep(1)")


class Started:
    """A job that runs as a process of this test."""

    def __init__(self, folder, code, rank=0, ranks=1, restart=0, **changes):
        self.log, self.record = folder / "log.txt", folder / "record.json"
        argv = (sys.executable, "-S", "-c", textwrap.dedent(code))
        fields = {"env": {"OWN": "mine"}, "cwd": folder, "grace": 20.0, "retries": 2, **changes}
        job = Wrapped("one", argv, self.log, record=self.record, **fields)
        path = folder / f"job{rank}.pkl"
        path.write_bytes(pickle.dumps(job))
        slurm = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "2", "SLURMD_NODENAME": "n7"}
        slurm |= {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(ranks), "SLURM_RESTART_COUNT": str(restart)}
        self.process = subprocess.Popen([sys.executable, "-c", WRAPPER, str(path)], env={**os.environ, **slurm})

    def signal_when_ready(self, number):
        self.wait_until_ready()
        self.process.send_signal(number)

    def wait_until_ready(self):
        until = time.monotonic() + 20
        while not (self.log.exists() and "ready" in self.log.read_text()):
            assert time.monotonic() < until
            time.sleep(0.02)

    def ended(self):
        """The exit code and the record."""
        return self.process.wait(30), read_attempt(self.record)


def test_the_module_is_light():
    code = (
        "import jaxgpt.launch.executor.slurm_job, sys; print({'jax', 'submitit', 'yaml', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_task_runs_and_leaves_a_record(tmp_path):
    began = time.time()
    code, record = Started(tmp_path, "import os; print(os.environ['OWN'], os.getcwd())").ended()
    assert code == 0
    assert (tmp_path / "log.txt").read_text() == f"mine {tmp_path}\n"
    assert record is not None
    assert (record.name, record.job, record.node, record.number) == ("one", "10_2", "n7", 1)
    assert (record.code, record.final, record.restart) == (0, True, 0)
    assert began <= record.started <= (record.ended or 0) <= time.time()


@pytest.mark.parametrize(
    ("program", "code", "exit_code"), [("raise SystemExit(3)", 3, 3), ("os.kill(os.getpid(), 9)", -9, 137)]
)
def test_a_task_that_ends_by_itself_has_ended(tmp_path, programs, program, code, exit_code):
    found, record = Started(tmp_path, f"import os; {program}").ended()
    assert found == exit_code
    assert record is not None
    assert (record.code, record.final) == (code, True)
    assert programs.calls() == []


def test_a_log_that_cannot_be_written_is_an_end(tmp_path):
    (tmp_path / "file").write_text("")
    started = Started(tmp_path, "")
    assert started.ended()[0] == 0
    job = Wrapped("one", ("true",), tmp_path / "file" / "log", {}, None, tmp_path / "record.json", 1.0, 0)
    (tmp_path / "job.pkl").write_bytes(pickle.dumps(job))
    command = [sys.executable, "-c", WRAPPER, str(tmp_path / "job.pkl")]
    done = subprocess.run(command, env={**os.environ, "SLURM_JOB_ID": "13"}, check=False)
    record = read_attempt(tmp_path / "record.json")
    assert record is not None
    assert done.returncode == record.code == 1
    assert record.job == "13"
    assert "could not be started" in record.message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize("state", ["RUNNING", "SIGNALING"])
def test_a_signal_lets_the_task_save_and_asks_for_another_start(tmp_path, programs, number, state):
    programs(squeue=f"echo {state}", scontrol="exit 0")
    started = Started(tmp_path, SAVES)
    started.signal_when_ready(number)
    code, record = started.ended()
    assert (code, started.log.read_text()) == (130, "ready\nsaved\n")
    assert record is not None
    assert (record.code, record.final, record.unsaved) == (130, False, 0)
    assert programs.calls()[1:] == ["scontrol requeue 10_2"]


@pytest.mark.parametrize("answer", ["echo COMPLETING", "exit 1"])
def test_a_job_that_slurm_ends_asks_for_nothing(tmp_path, programs, answer):
    programs(squeue=answer, scontrol="exit 0")
    started = Started(tmp_path, SAVES)
    started.signal_when_ready(signal.SIGTERM)
    code, record = started.ended()
    assert code == 130
    assert record is not None
    assert (record.code, record.final) == (130, False)
    assert [call.split()[0] for call in programs.calls()] == ["squeue"]


def test_a_start_that_slurm_refuses_is_an_end(tmp_path, programs):
    programs(squeue="echo RUNNING", scontrol="echo 'Requested operation is disabled' >&2; exit 1")
    started = Started(tmp_path, SAVES)
    started.signal_when_ready(signal.SIGUSR2)
    _, record = started.ended()
    assert record is not None
    assert (record.code, record.final) == (130, True)
    assert record.message.endswith("Slurm does not start it again: Requested operation is disabled")


@pytest.mark.parametrize(("unsaved", "final"), [(0, False), (1, False), (2, True)])
def test_a_task_that_never_saves_is_not_started_for_ever(tmp_path, programs, unsaved, final):
    programs(squeue="echo RUNNING", scontrol="exit 0")
    before = Attempt("one", "10_2", 0, 4, "n1", 100.0, ended=110.0, code=-9, unsaved=unsaved)
    write(tmp_path / "record.json", before)
    started = Started(tmp_path, STUBBORN, restart=1, grace=0.3)
    started.signal_when_ready(signal.SIGUSR2)
    _, record = started.ended()
    assert record is not None
    assert (record.code, record.unsaved, record.final, record.number) == (-9, unsaved + 1, final, 5)
    assert record.before == 10.0
    assert ("3 times in a row" in record.message) == final
    assert ("scontrol requeue 10_2" in programs.calls()) != final


def test_a_task_that_ends_well_after_the_signal_has_ended(tmp_path, programs):
    started = Started(tmp_path, SAVES.replace("sys.exit(130)", "sys.exit(0)"))
    started.signal_when_ready(signal.SIGUSR2)
    code, record = started.ended()
    assert record is not None
    assert (code, record.code, record.final) == (0, 0, True)
    assert programs.calls() == []


def test_the_task_itself_does_not_see_the_jobs_signal(tmp_path):
    """Slurm signals every process of a job; USR2 would end one that does not know it."""
    started = Started(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('alive')")
    assert started.ended()[0] == 0
    assert started.log.read_text() == "alive\n"


def test_another_process_has_a_log_of_its_own_and_records_only_a_failure(tmp_path):
    assert Started(tmp_path, "print('words')", rank=1, ranks=2).ended() == (0, None)
    assert (tmp_path / "log.1.txt").read_text() == "words\n"
    code, record = Started(tmp_path, "raise SystemExit(3)", rank=1, ranks=2).ended()
    assert record is not None
    assert (code, record.code, record.final) == (3, 3, True)
    assert record.message == "process 1 of 2 ended with 3"


def test_when_another_process_failed_the_first_asks_for_no_other_start(tmp_path, programs):
    programs(squeue="echo RUNNING", scontrol="exit 0")
    first = Started(tmp_path, SAVES, ranks=2)
    first.wait_until_ready()
    other = Started(tmp_path, "raise SystemExit(3)", rank=1, ranks=2)
    other.ended()
    first.signal_when_ready(signal.SIGTERM)  # as srun does
    _, record = first.ended()
    assert record is not None
    assert (record.code, record.final) == (3, True)
    assert programs.calls() == []


def test_the_first_process_does_not_hide_that_another_failed_before_it_began(tmp_path):
    Started(tmp_path, "raise SystemExit(3)", rank=1, ranks=2).ended()
    _, record = Started(tmp_path, "", ranks=2).ended()
    assert record is not None
    assert (record.code, record.final) == (3, True)


def test_another_process_that_saved_stays_until_it_is_ended(tmp_path, programs):
    """Its end would end the first before that has asked for another start."""
    programs(squeue="echo RUNNING", scontrol="exit 0")
    started = Started(tmp_path, "raise SystemExit(130)", rank=1, ranks=2)
    with pytest.raises(subprocess.TimeoutExpired):
        started.process.wait(1.5)
    started.process.terminate()
    assert started.ended() == (0, None)
    assert programs.calls() == []


def test_a_task_that_finds_another_at_its_work_tries_again(tmp_path):
    code = """
        import os, sys
        if not os.path.exists("tried"):
            open("tried", "w"); print("busy"); sys.exit(75)
        print("through")
    """
    started = Started(tmp_path, code)
    assert started.ended()[0] == 0
    assert started.log.read_text() == "busy\nthrough\n"
