"""A folder has one writer, here and across machines."""

import dataclasses
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from jaxgpt import lease
from jaxgpt.errors import UserError
from jaxgpt.lease import LAPSE, LEASE, Holder, Locked, holder, is_locked, locked


def test_a_lock_keeps_others_out_and_names_its_holder(tmp_path):
    with locked(tmp_path / "run"):
        assert is_locked(tmp_path / "run")
        with pytest.raises(Locked, match=f"process {os.getpid()} on .* is writing there"), locked(tmp_path / "run"):
            pass
    assert not is_locked(tmp_path / "run")
    with locked(tmp_path / "run"):
        pass


def test_a_lock_waits_for_a_holder_that_is_about_to_end(tmp_path):
    entered = threading.Event()

    def hold():
        with locked(tmp_path):
            entered.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with locked(tmp_path, wait=10):
        assert not thread.is_alive() or thread.join(1) is None
    thread.join()


def test_a_killed_holder_leaves_nothing_behind(tmp_path):
    code = f"""
import time
from pathlib import Path
from jaxgpt.lease import locked
with locked(Path({str(tmp_path)!r})):
    print("held", flush=True); time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_locked(tmp_path)
    with pytest.raises(Locked, match=f"process {holder.pid} "), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locked(tmp_path, wait=5):
        assert is_locked(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run: cannot be written \(Not a directory\); .*--runs-dir"):
        locked(tmp_path / "file" / "run").__enter__()
    assert not is_locked(tmp_path / "missing")


def leave(folder, age=0.0, **changes):
    """The lease of another writer, as it is found."""
    other = dataclasses.replace(Holder.this(), token="other", **changes)
    (folder / LEASE).write_text(json.dumps(dataclasses.asdict(other)))
    then = time.time() - age
    os.utime(folder / LEASE, (then, then))
    return other


def test_a_writer_on_another_machine_is_believed_for_a_minute(tmp_path):
    other = leave(tmp_path, age=LAPSE / 2, machine="elsewhere", host="n7", pid=1)
    assert holder(tmp_path) == other
    with pytest.raises(Locked, match="process 1 on n7 is writing there"), locked(tmp_path):
        pass
    leave(tmp_path, age=LAPSE + 5, machine="elsewhere", host="n7", pid=1)
    assert holder(tmp_path) is None
    with locked(tmp_path):
        assert holder(tmp_path).host == socket.gethostname()


def test_a_number_that_came_again_is_another_process(tmp_path):
    leave(tmp_path, started="long ago")
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        pass


def test_half_a_lease_is_none(tmp_path):
    (tmp_path / LEASE).write_text('{"token": "x", ')
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
    assert not (tmp_path / LEASE).exists()


def test_a_holder_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with locked(tmp_path):
        os.utime(tmp_path / LEASE, (0, 0))
        until = time.monotonic() + 5
        while (tmp_path / LEASE).stat().st_mtime < 1e9:
            assert time.monotonic() < until
            time.sleep(0.02)


HOLD = """
import sys, time
from pathlib import Path
from jaxgpt import lease
lease.BEAT = 0.05
try:
    with lease.locked(Path(sys.argv[1])):
        print("held", flush=True); time.sleep(60)
finally:
    Path(sys.argv[1], "wrote on").touch()
"""


def test_who_was_asleep_and_lost_the_folder_writes_no_more(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    successor = leave(tmp_path, machine="elsewhere", host="n7", pid=1)
    _, said = process.communicate(timeout=30)
    assert process.returncode == Locked.exit_code
    assert "was taken over by process 1 on n7" in said
    assert not (tmp_path / "wrote on").exists()
    assert holder(tmp_path) == successor


def test_who_was_asleep_while_another_came_and_went_writes_no_more(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    (tmp_path / LEASE).unlink()
    _, said = process.communicate(timeout=30)
    assert process.returncode == Locked.exit_code
    assert "was taken over by another process, which has ended" in said
    assert not (tmp_path / "wrote on").exists()


@pytest.mark.parametrize("made", [False, True], ids=["no links", "says no and has made it"])
def test_a_file_system_whose_links_fail(tmp_path, monkeypatch, made):
    real = os.link

    def link(source, target):
        if made:
            real(source, target)
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "link", link)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        if not made:
            with pytest.raises(Locked), locked(tmp_path):
                pass
    assert not is_locked(tmp_path)


RACE = """
import sys, time
from pathlib import Path
from jaxgpt.lease import Locked, locked
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(rounds):
    with locked(folder, wait=60):
        count = folder / "count"
        seen = int(count.read_text())
        time.sleep(0.002)
        count.write_text(str(seen + 1))
"""


def test_many_that_come_at_once_go_in_one_by_one(tmp_path):
    (tmp_path / "count").write_text("0")
    leave(tmp_path, age=LAPSE + 5, machine="elsewhere")  # one that has lapsed, which all find at once
    racers = [subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), "10"]) for _ in range(4)]
    assert [racer.wait(timeout=120) for racer in racers] == [0] * 4
    assert (tmp_path / "count").read_text() == "40"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "count"]
