"""The executor on a real Slurm, its accounting off: short Python programs as tasks, preempted, killed, cancelled."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.launch.executor.slurm import SlurmConfig
from jaxgpt.launch.executor.slurm_files import attempt_path, job_path, read_attempt, read_submitted
from jaxgpt.launch.executor.slurm_queue import cancel, jobs
from jaxgpt.launch.task import Needs, Task

pytestmark = pytest.mark.slurm

PYTHON = (sys.executable, "-S", "-c")

SAVES = """
    import os, signal, sys, time
    state = sys.argv[1] + "." + os.environ["SLURM_PROCID"]
    def save(number, frame):
        time.sleep(1)
        open(state, "a").write("saved")
        print("saved", flush=True)
        sys.exit(130)
    signal.signal(signal.SIGTERM, save)
    print("ready", flush=True)
    if os.path.exists(state):
        print("went on", flush=True)
        sys.exit(0)
    time.sleep(120)
"""


def task(tmp_path, name, code, **changes):
    argv = (*PYTHON, textwrap.dedent(code), str(tmp_path / f"{name}.state"))
    return Task(name, argv, tmp_path / "logs" / f"{name}.txt", **changes)


@pytest.fixture
def executor(lab, tmp_path):
    """`executor(**fields)`: one whose folder is this test's. Its jobs end with the test."""

    def make(**fields):
        made = SlurmConfig(**{"poll_seconds": 0.3, "minutes": 10, **fields}).make(Needs(), tmp_path / "executor")
        made.settle = 1.0
        return made

    yield make
    cancel(tmp_path / "executor")
    wait_until(lambda: not lab.ask("squeue", "--noheader").strip(), 60)


def wait_until(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.1)


def read(path):
    return path.read_text() if path.exists() else ""


def meanwhile(condition, action):
    """Do something in a thread once a condition holds; what the thread returned is its `result`."""

    def body():
        wait_until(condition)
        action()

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def job_of(tmp_path, name):
    record = read_submitted(job_path(tmp_path / "executor", name))
    return record and record.job


def submissions(tmp_path):
    """Calls of sbatch that were taken."""
    return len(list((tmp_path / "executor" / "slurm" / "submitit").glob("*_submission.sh")))


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def heard(events):
    """A listener that keeps what tells something, as (kind, name)."""
    return lambda event: event.kind != "tick" and events.append((event.kind, event.task and event.task.name))


def test_an_array_runs_every_task_once_and_at_most_so_many_at_a_time(executor, tmp_path):
    code = """
        import sys, time
        print(time.time(), flush=True); time.sleep(0.5); print(time.time())
    """
    tasks = [task(tmp_path, f"t{i}", code) for i in range(24)]
    events = []
    one = executor(array_parallelism=3)
    outcomes = one.run(tasks, heard(events))
    assert one.parallel == 3
    assert all(outcome.ok and outcome.attempts == 1 for outcome in outcomes)
    assert [outcome.task.name for outcome in outcomes] == [f"t{i}" for i in range(24)]
    spans = [tuple(map(float, read(one.log).split())) for one in tasks]
    assert all(len(span) == 2 for span in spans)  # each ran once
    at_once = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
    assert 1 < max(at_once) <= 3
    assert submissions(tmp_path) == 1
    assert sorted(events) == sorted([(kind, f"t{i}") for kind in ("started", "ended") for i in range(24)])


def test_two_hundred_tasks_are_one_call_of_sbatch(executor, tmp_path):
    tasks = [task(tmp_path, f"t{i}", "print('never')") for i in range(200)]
    directory = tmp_path / "executor"
    states = []
    thread = meanwhile(lambda: job_of(tmp_path, "t199"), lambda: (states.append(jobs(directory)), interrupt()))
    one = executor(additional={"hold": True})
    outcomes = one.run(tasks)
    thread.join()
    assert one.interrupted
    assert {outcome.code for outcome in outcomes} == {None}
    assert submissions(tmp_path) == 1
    assert len(states[0]) == 200
    assert {(job.state, job.reason) for job in states[0].values()} == {("PENDING", "JobHeldUser")}
    assert len(cancel(directory)) == 200


def test_the_signal_ahead_of_the_end_lets_a_task_save_and_go_on(executor, tmp_path, lab):
    one = task(tmp_path, "one", SAVES)
    send = ("scancel", "--signal=USR2")
    thread = meanwhile(lambda: "ready" in read(one.log), lambda: lab.ask(*send, f"{job_of(tmp_path, 'one')}.0"))
    events = []
    [outcome] = executor(retries=0).run([one], heard(events))
    thread.join()
    assert (outcome.code, outcome.attempts) == (0, 2)
    assert read(one.log) == "ready\nsaved\nready\nwent on\n"
    assert [kind for kind, _ in events] == ["started", "again", "started", "ended"]
    assert submissions(tmp_path) == 1


@pytest.mark.parametrize("user_signal", [True, False])
def test_a_preemption_lets_a_task_save_and_go_on(executor, tmp_path, lab, user_signal):
    one = task(tmp_path, "one", SAVES)
    urgent = ("sbatch", "--partition=urgent", "--nodes=2", "--ntasks=4", "--output=/dev/null", "--wrap=sleep 3")
    lab.announce(user_signal)
    try:
        thread = meanwhile(lambda: "ready" in read(one.log), lambda: lab.ask(*urgent))
        [outcome] = executor(retries=0).run([one])
        thread.join()
    finally:
        lab.announce(True)
    assert (outcome.code, outcome.attempts) == (0, 2)
    assert read(one.log) == "ready\nsaved\nready\nwent on\n"
    assert submissions(tmp_path) == 1


def test_a_task_that_is_killed_without_having_saved_is_requeued_by_slurm(executor, tmp_path, lab):
    code = """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(0 if os.environ.get("SLURM_RESTART_COUNT") else 120)
    """
    one = task(tmp_path, "one", code)
    requeue = ("scontrol", "requeue")
    thread = meanwhile(lambda: "ready" in read(one.log), lambda: lab.ask(*requeue, job_of(tmp_path, "one")))
    [outcome] = executor(retries=0).run([one])
    thread.join()
    assert (outcome.code, outcome.attempts) == (0, 2)
    assert read(one.log) == "ready\nready\n"
    assert submissions(tmp_path) == 1


def test_what_is_killed_is_tried_again_and_what_fails_is_not(executor, tmp_path):
    once = """
        import os, sys, time
        if not os.path.exists(sys.argv[1]):
            open(sys.argv[1], "w")
            os.kill({}, 9)
            time.sleep(60)  # where it was another that was killed
        print("through")
    """
    tasks = [
        task(tmp_path, "killed", once.format("os.getpid()")),
        task(tmp_path, "lost", once.format("os.getppid()")),  # with the process that keeps the record
        task(tmp_path, "doomed", "import os; os.kill(os.getpid(), 9)"),
        task(tmp_path, "wrong", "print('words'); raise SystemExit(3)"),
    ]
    events = []
    killed, lost, doomed, wrong = executor(retries=1).run(tasks, heard(events))
    assert (killed.code, killed.attempts) == (0, 2)
    assert (lost.code, lost.attempts) == (0, 2)
    assert read(tasks[1].log) == "through\n"
    assert (doomed.code, doomed.attempts, doomed.describe()) == (-9, 2, "killed by SIGKILL (out of memory?)")
    assert (wrong.code, wrong.attempts, wrong.describe()) == (3, 1, "exit code 3")
    assert sorted(name for kind, name in events if kind == "again") == ["doomed", "killed", "lost"]


def test_a_job_that_never_began_says_where_its_output_is(executor, tmp_path):
    [outcome] = executor(retries=0, setup=("echo no such module; exit 7",)).run([task(tmp_path, "one", "")])
    assert outcome.code == -9
    found = re.fullmatch(r"its Slurm job (\d+) ended: FAILED, NonZeroExitCode; its output: (.*)", outcome.describe())
    assert found is not None
    assert read(tmp_path / found[2]) == "no such module\n"


def test_two_processes_on_two_nodes(executor, tmp_path):
    one = task(tmp_path, "one", "import os; print(os.environ['SLURM_PROCID'], os.environ['SLURMD_NODENAME'])")
    [outcome] = executor(nodes=2).run([one])
    assert outcome.ok
    assert read(one.log) == "0 n0\n"
    wait_until(lambda: read(one.log.with_name("one.1.txt")) == "1 n1\n")  # the first is what is waited for


def test_a_failing_process_ends_the_others(executor, tmp_path):
    code = """
        import os, time
        if os.environ["SLURM_PROCID"] == "1":
            time.sleep(1)
            raise SystemExit(3)
        print("ready", flush=True)
        time.sleep(120)
    """
    started = time.monotonic()
    one = task(tmp_path, "one", code)
    [outcome] = executor(nodes=2).run([one])
    assert (outcome.code, outcome.attempts) == (3, 1)
    assert outcome.describe() == "process 1 of 2 ended with 3"
    assert time.monotonic() - started < 60
    assert read(one.log) == "ready\n"


def test_all_processes_save_before_the_job_is_requeued(executor, tmp_path, lab):
    slow_first = SAVES.replace("time.sleep(1)", "time.sleep(2 if os.environ['SLURM_PROCID'] == '0' else 0)")
    one = task(tmp_path, "one", slow_first)
    other = one.log.with_name("one.1.txt")
    send = ("scancel", "--signal=USR2")
    ready = meanwhile(
        lambda: "ready" in read(one.log) and "ready" in read(other),
        lambda: lab.ask(*send, f"{job_of(tmp_path, 'one')}.0"),
    )
    [outcome] = executor(nodes=2, retries=0).run([one])
    ready.join()
    assert (outcome.code, outcome.attempts) == (0, 2)
    assert read(one.log) == read(other) == "ready\nsaved\nready\nwent on\n"


def test_an_interrupt_lets_jobs_go_on_and_another_run_follows_them(executor, tmp_path):
    code = "import time; print('ran', flush=True); time.sleep(4)"
    tasks = [task(tmp_path, f"t{i}", code) for i in range(2)]
    messages = []
    thread = meanwhile(lambda: "ran" in read(tasks[0].log), interrupt)
    one = executor()
    outcomes = one.run(tasks, lambda event: messages.append(event.message))
    thread.join()
    assert one.interrupted
    assert {outcome.code for outcome in outcomes} == {None}
    number = job_of(tmp_path, "t0").partition("_")[0]
    assert f"2 runs go on in Slurm; the same command follows them again, and `scancel {number}` ends them" in messages
    events = []
    another = executor()
    outcomes = another.run(tasks, heard(events))
    assert not another.interrupted
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert {("started", "t0"), ("ended", "t0")} <= set(events)
    assert submissions(tmp_path) == 1
    assert read(tasks[0].log) == "ran\n"
    assert all(outcome.ok for outcome in executor().run(tasks))  # what has ended is executed again when asked for
    assert read(tasks[0].log) == "ran\nran\n"


def test_what_comes_after_another_goes_on_without_a_follower(executor, tmp_path):
    parent = task(tmp_path, "parent", "import time; print('ran', flush=True); time.sleep(3); print('through')")
    child = task(tmp_path, "child", f"print(open({str(parent.log)!r}).read())", after=("parent", "done before"))
    thread = meanwhile(lambda: "ran" in read(parent.log), interrupt)
    executor().run([parent, child])
    thread.join()
    wait_until(lambda: "through" in read(child.log))


def test_what_comes_after_a_failure_is_not_run_and_waits_for_one_that_is_tried_again(executor, tmp_path):
    once = """
        import os, sys, time
        if not os.path.exists(sys.argv[1]):
            open(sys.argv[1], "w")
            os.kill(os.getpid(), 9)
        print("through")
    """
    bad = task(tmp_path, "bad", "raise SystemExit(3)")
    orphan = task(tmp_path, "orphan", "print('ran')", after=("bad",))
    grandchild = task(tmp_path, "grandchild", "print('ran')", after=("orphan",))
    twice = task(tmp_path, "twice", once)
    child = task(tmp_path, "child", f"print(open({str(twice.log)!r}).read())", after=("twice",))
    outcomes = executor(retries=1).run([bad, orphan, grandchild, twice, child])
    assert [outcome.code for outcome in outcomes] == [3, None, None, 0, 0]
    assert outcomes[1].describe() == "not run, because bad did not succeed"
    assert outcomes[2].describe() == "not run, because orphan did not succeed"
    assert "through" in read(child.log)
    assert not list(tmp_path.glob("logs/orphan*"))


def test_cancelled_jobs_save_are_not_tried_again_and_run_when_asked_for(executor, tmp_path):
    one, directory = task(tmp_path, "one", SAVES), tmp_path / "executor"
    cancelled = []
    thread = meanwhile(lambda: "ready" in read(one.log), lambda: cancelled.extend(cancel(directory, ["one", "other"])))
    [outcome] = executor().run([one])
    thread.join()
    assert cancelled == ["one"]
    assert (outcome.code, outcome.describe()) == (130, "its Slurm job was cancelled")
    assert read(one.log) == "ready\nsaved\n"
    first = job_of(tmp_path, "one")
    [outcome] = executor().run([one])
    assert outcome.ok
    assert read(one.log) == "ready\nsaved\nready\nwent on\n"
    assert job_of(tmp_path, "one") != first


def test_a_run_right_after_a_cancellation_waits_for_the_job_to_end(executor, tmp_path):
    one, directory = task(tmp_path, "one", SAVES), tmp_path / "executor"
    thread = meanwhile(lambda: "ready" in read(one.log), interrupt)
    executor().run([one])
    thread.join()
    running = jobs(directory)["one"]
    assert (running.id, running.state, running.node) == (job_of(tmp_path, "one"), "RUNNING", "n0")
    cancel(directory)
    [outcome] = executor().run([one])
    assert outcome.ok
    assert read(one.log) == "ready\nsaved\nready\nwent on\n"


def test_a_listener_stops_tasks(executor, tmp_path):
    one, other = task(tmp_path, "one", SAVES), task(tmp_path, "other", "print('fine')")
    executing = executor()

    def listener(event):
        if event.kind == "tick" and "ready" in read(one.log):
            executing.stop(["one"])

    stopped, fine = executing.run([one, other], listener)
    assert (stopped.code, stopped.describe()) == (130, "stopped on request")
    assert fine.ok
    assert not executing.interrupted


def test_what_slurm_refuses_is_one_message_in_its_words(executor, tmp_path, capfd):
    with pytest.raises(ConfigError) as error:
        executor(partition="nowhere").run([task(tmp_path, f"t{i}", "") for i in range(3)])
    expected = "executor: Slurm refuses the jobs: invalid partition specified: nowhere "
    assert str(error.value) == expected + "Batch job submission failed: Invalid partition name specified"
    assert capfd.readouterr().err == ""
    with pytest.raises(ConfigError, match="unrecognized option '--no-such=1'"):
        executor(additional={"no-such": 1}).run([task(tmp_path, "one", "")])


def test_the_time_limit_ends_no_run_that_saves(executor, tmp_path):
    """The smallest limit that leaves time: the signal comes when the job is some seconds old."""
    one = task(tmp_path, "one", SAVES)
    [outcome] = executor(retries=0, minutes=2, signal_seconds=55).run([one])
    assert (outcome.code, outcome.attempts) == (0, 2)
    attempt = read_attempt(attempt_path(tmp_path / "executor", "one"))
    assert attempt is not None
    assert (attempt.restart, attempt.final) == (1, True)
    assert read(one.log) == "ready\nsaved\nready\nwent on\n"


def test_a_job_can_submit_jobs(executor, tmp_path, lab):
    """From within an allocation, whose variables would become the new jobs' options."""
    script = f"""
from pathlib import Path
import sys
from jaxgpt.launch.executor.slurm import SlurmConfig
from jaxgpt.launch.task import Needs, Task
config = SlurmConfig(poll_seconds=0.3, minutes=5)
task = Task("inner", (sys.executable, "-S", "-c", "import os; print(os.environ['SLURM_JOB_ID'])"), Path("inner.txt"))
[outcome] = config.make(Needs(), Path({str(tmp_path / "executor")!r})).run([task])
sys.exit(outcome.code)
"""
    command = ["srun", "--ntasks=1", "--mem=100", sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "inner.txt").strip() == job_of(tmp_path, "inner")
