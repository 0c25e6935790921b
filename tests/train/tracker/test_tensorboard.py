"""TensorBoard's events, read back as the protocol defines them, and a disk that does not take them."""

import errno
import os
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxgpt.train.tracker.base import TrackedRun, Trackers
from jaxgpt.train.tracker.tensorboard import TensorBoardConfig


def events(folder):
    """Records: length, its checksum, an event, its checksum."""
    (path,) = folder.glob("events.*")
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_every_number_is_there_by_step(tmp_path):
    board = TensorBoardConfig().make(TrackedRun(tmp_path, {}, 5))
    board.add(5, {"loss": 1.5, "tokens": 640})
    board.add(6, {"loss": 1.25})
    board.close()
    version, start, *rest = events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, SessionLog.START)
    assert [(e.step, {value.tag: value.simple_value for value in e.summary.value}) for e in rest] == [
        (5, {"loss": 1.5, "tokens": 640.0}),
        (6, {"loss": 1.25}),
    ]


@pytest.mark.parametrize("fails", ["flush", "write_event", "close"])
def test_a_full_disk_is_one_warning(tmp_path, monkeypatch, caplog, fails):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    trackers = Trackers([TensorBoardConfig()], TrackedRun(tmp_path, {}, 1))
    (board,) = trackers._working.values()
    monkeypatch.setattr(board._writer, fails, full)
    trackers.add(1, {"loss": 1.5})
    trackers.add(2, {"loss": 1.25})
    trackers.close()
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}: tensorboard is left out from here on (No space left on device)"


def test_a_place_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("no folder")
    trackers = Trackers([TensorBoardConfig()], TrackedRun(tmp_path, {}, 1))
    trackers.add(1, {"loss": 1.5})
    trackers.close()
    assert len(caplog.records) == 1
