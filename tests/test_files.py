"""Files are replaced whole or not at all, and a folder has one writer."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from jaxgpt.errors import UserError
from jaxgpt.files import Locked, is_locked, locked, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.txt"
    write_atomic(path, "old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"file.txt: cannot be written \(No space left on device\)"):
        write_atomic(path, b"new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_json_is_written_for_people_and_refuses_nan(tmp_path):
    path = tmp_path / "status.json"
    write_json(path, {"state": "läuft", "step": 3})
    assert "läuft" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"state": "läuft", "step": 3}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["step"] == 3


def test_a_lock_keeps_others_out_and_names_its_holder(tmp_path):
    with locked(tmp_path / "run"):
        assert is_locked(tmp_path / "run")
        with pytest.raises(Locked, match=f"process {os.getpid()} is writing there"), locked(tmp_path / "run"):
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
from jaxgpt.files import locked
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
