"""The pool with real processes: failures kept apart, limits kept, nothing left alive."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from jaxgpt.launch.executor.local import Pool
from jaxgpt.launch.task import Slot, Task

PYTHON = (sys.executable, "-S", "-c")


def task(tmp_path, name, code, **changes):
    return Task(name, (*PYTHON, textwrap.dedent(code)), tmp_path / f"{name}.log", **changes)


def pool(count=2, **changes):
    return Pool([Slot({"SLOT": str(i)}) for i in range(count)], interval=0.01, **changes)


def alive(pid):
    """Whether a process runs; one that ended and waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def test_failures_neither_stop_nor_hide_the_others(tmp_path):
    tasks = [
        task(tmp_path, "bad", "print('words of the failure'); raise SystemExit(3)"),
        task(tmp_path, "dead", "import os; os.kill(os.getpid(), 9)"),
        task(tmp_path, "good", "print('fine')"),
        Task("missing", ("no-such-command",), tmp_path / "missing.log"),
        task(tmp_path, "last", "print('fine, too')"),
    ]
    events = []
    outcomes = pool().run(tasks, lambda event: events.append((event.kind, event.task and event.task.name)))
    assert [outcome.code for outcome in outcomes] == [3, -9, 0, 1, 0]
    assert [outcome.task.name for outcome in outcomes] == ["bad", "dead", "good", "missing", "last"]
    assert (tmp_path / "bad.log").read_text() == "words of the failure\n"
    assert (tmp_path / "last.log").read_text() == "fine, too\n"
    assert {("started", "good"), ("ended", "good"), ("ended", "dead")} <= set(events)


def test_tasks_wait_for_what_they_come_after(tmp_path):
    note = "open({!r}, 'a').write('{} ')".format(str(tmp_path / "order"), "{}")
    slow = task(tmp_path, "slow", "import time; time.sleep(0.3); " + note.format("slow"))
    last = task(tmp_path, "last", note.format("last"), after=("slow", "done before"))
    other = task(tmp_path, "other", note.format("other"))
    assert all(outcome.ok for outcome in pool(3).run([slow, last, other]))
    assert (tmp_path / "order").read_text() == "other slow last "


def test_what_comes_after_a_failure_is_not_run(tmp_path):
    bad = task(tmp_path, "bad", "raise SystemExit(3)")
    missing = Task("missing", ("no-such-command",), tmp_path / "missing.log")
    child = task(tmp_path, "child", "print('ran')", after=("bad",))
    grandchild = task(tmp_path, "grandchild", "print('ran')", after=("child",))
    orphan = task(tmp_path, "orphan", "print('ran')", after=("missing",))
    good = task(tmp_path, "good", "print('fine')")
    events = []
    outcomes = pool(1).run(
        [bad, child, grandchild, missing, orphan, good],
        lambda event: event.outcome and events.append((event.task.name, event.outcome.describe())),
    )
    assert [outcome.code for outcome in outcomes] == [3, None, None, 1, None, 0]
    assert ("child", "not run, because bad did not succeed") in events
    assert ("grandchild", "not run, because child did not succeed") in events
    assert ("orphan", "not run, because missing did not succeed") in events
    assert not list(tmp_path.glob("*child.log"))


def test_tasks_that_could_wait_for_ever_are_refused(tmp_path):
    first, second = (task(tmp_path, name, "", after=("b",)) for name in "ab")
    with pytest.raises(ValueError, match="task a comes after b, which does not stand before it"):
        pool().run([first, second])


def test_at_most_one_task_per_slot_each_with_its_environment(tmp_path):
    code = f"""
        import os, time
        place = {str(tmp_path)!r} + "/busy-" + os.environ["SLOT"]
        os.mkdir(place); time.sleep(0.1); os.rmdir(place)
        print(os.environ["SLOT"], os.environ["OWN"], os.getcwd())
    """
    tasks = [task(tmp_path, f"t{i}", code, env={"OWN": f"e{i}"}, cwd=tmp_path) for i in range(6)]
    assert all(outcome.ok for outcome in pool(2).run(tasks))
    lines = [(tmp_path / f"t{i}.log").read_text().split() for i in range(6)]
    assert {line[0] for line in lines} == {"0", "1"}
    assert [line[1] for line in lines] == [f"e{i}" for i in range(6)]
    assert all(line[2] == str(tmp_path) for line in lines)


def test_a_log_that_cannot_be_written_fails_its_task_only(tmp_path):
    (tmp_path / "file").write_text("")
    bad = Task("bad", ("true",), tmp_path / "file" / "log.txt")
    first, second = pool(1).run([bad, task(tmp_path, "good", "print('fine')")])
    assert not first.ok
    assert "could not be started" in first.describe()
    assert second.ok


def test_needs_slots_and_the_main_thread(tmp_path):
    with pytest.raises(ValueError, match="at least one slot"):
        Pool([])
    errors = []

    def elsewhere():
        try:
            pool().run([])
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in errors[0]


SAVES = """
    import signal, sys, time
    def save(number, frame):
        print("saved", flush=True); sys.exit(130)
    signal.signal(signal.SIGTERM, save)
    print("ready", flush=True); time.sleep(60)
"""
STUBBORN = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True); time.sleep(60)
"""


def stop_when_ready(log, *signals):
    """Send signals to this process, one after the other, once a task has written `ready`."""

    def send():
        wait_until(lambda: log.exists() and "ready" in log.read_text())
        for number in signals:
            os.kill(os.getpid(), number)
            time.sleep(0.2)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_lets_tasks_save(tmp_path, number):
    saving = task(tmp_path, "saving", SAVES)
    thread = stop_when_ready(saving.log, number)
    events, one = [], pool(1)
    before = signal.getsignal(number)
    outcomes = one.run([saving, task(tmp_path, "waiting", "print('never')")], lambda event: events.append(event.kind))
    thread.join()
    assert one.interrupted
    assert "stopping" in events
    assert [outcome.code for outcome in outcomes] == [130, None]
    assert "saved" in saving.log.read_text()
    assert not (tmp_path / "waiting.log").exists()
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As under nohup."""
    short = task(tmp_path, "short", "import time; print('ready', flush=True); time.sleep(0.5); print('through')")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        thread = stop_when_ready(short.log, signal.SIGHUP)
        [outcome] = pool(1).run([short])
        thread.join()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert outcome.ok
    assert "through" in short.log.read_text()


def test_a_second_request_kills(tmp_path):
    stubborn = task(tmp_path, "stubborn", STUBBORN)
    thread = stop_when_ready(stubborn.log, signal.SIGINT, signal.SIGINT)
    started = time.monotonic()
    [outcome] = pool(1, grace=60.0).run([stubborn])
    thread.join()
    assert outcome.code == -9
    assert time.monotonic() - started < 20


def test_grace_is_bounded(tmp_path):
    stubborn = task(tmp_path, "stubborn", STUBBORN)
    thread = stop_when_ready(stubborn.log, signal.SIGTERM)
    [outcome] = pool(1, grace=0.3).run([stubborn])
    thread.join()
    assert outcome.code == -9


def test_an_error_of_the_listener_leaves_no_process(tmp_path):
    sleeping = task(tmp_path, "sleeping", "import os, time; print(os.getpid(), flush=True); time.sleep(60)")

    def listener(event):
        if sleeping.log.exists() and sleeping.log.read_text().strip():
            raise KeyError("a bug in the display")

    with pytest.raises(KeyError, match="a bug"):
        pool(1).run([sleeping], listener)
    assert not alive(int(sleeping.log.read_text()))


LAUNCHER = """
import sys
from pathlib import Path
from jaxgpt.launch.executor.local import Pool
from jaxgpt.launch.task import Slot, Task
folder = Path(sys.argv[1])
code = "import os, time; print(os.getpid(), flush=True); time.sleep(120)"
tasks = [Task(f"t{i}", (sys.executable, "-S", "-c", code), folder / f"t{i}.log") for i in range(2)]
Pool([Slot(), Slot()]).run(tasks)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parent-death signal is Linux's")
def test_a_killed_launcher_leaves_no_worker_alive(tmp_path):
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path)])
    logs = [tmp_path / f"t{i}.log" for i in range(2)]
    wait_until(lambda: all(log.exists() and log.read_text().strip() for log in logs))
    pids = [int(log.read_text()) for log in logs]
    assert all(map(alive, pids))
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(map(alive, pids)), seconds=5)


def test_tasks_may_be_added_while_others_run(tmp_path):
    rooms, left = [], [task(tmp_path, f"t{number}", "import time; time.sleep(0.1)") for number in range(5)]

    def more(room):
        rooms.append(room)
        return [left.pop(0) for _ in range(min(room, len(left)))]

    first = task(tmp_path, "first", "print('fine')")
    outcomes = pool(2).run([first], more=more)
    assert [(outcome.task.name, outcome.ok) for outcome in outcomes] == [
        ("first", True),
        *((f"t{number}", True) for number in range(5)),
    ]
    assert rooms[0] == 1, "beside the first"
    assert max(rooms) == 2


def test_it_is_asked_for_more_only_when_a_task_has_ended(tmp_path):
    asked = []
    slow = task(tmp_path, "slow", "import time; time.sleep(0.5)")
    pool(2).run([slow], more=lambda room: asked.append(room) or ())
    assert asked == [1, 2]
    assert pool(2).run([], more=lambda room: ()) == []


def test_a_request_to_stop_ends_the_asking(tmp_path):
    """What is asked for later is not started; those that run are stopped."""
    events = []
    endless = (task(tmp_path, f"t{number}", "import time; time.sleep(60)") for number in range(99))

    def listen(event):
        events.append(event.kind)
        if event.kind == "started":
            os.kill(os.getpid(), signal.SIGTERM)

    outcomes = pool(2).run([], listen, more=lambda room: [next(endless)])
    assert all(outcome.code == -signal.SIGTERM for outcome in outcomes)
    assert len(outcomes) <= 2


def test_added_tasks_have_an_order_too(tmp_path):
    wrong = task(tmp_path, "a", "", after=("a",))
    with pytest.raises(ValueError, match="task a comes after a"):
        pool().run([], more=lambda room: [wrong])
