"""Files are replaced whole or not at all."""

import errno
import json
import os
import stat

import pytest

from jaxgpt.errors import UserError
from jaxgpt.files import write_atomic, write_json


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
