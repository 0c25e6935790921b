"""TensorBoard's copy of a run's metrics."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
FLUSH_EVERY = 10.0  # seconds


class Board:
    """Numbers by step, written by whoever calls; a resumed run's hide those after its first step. It is a copy to look
    at: what a full disk does not take is given up with one warning, and training goes on.

    Not tensorboardX's own writer: when its thread dies of a full disk, its queue fills, and training stands still.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter

        # Messages are made when their modules are imported, out of sight of type checkers.
        self._events: Any = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summaries: Any = importlib.import_module("tensorboardX.proto.summary_pb2")
        self._folder, self._flushed = folder, 0.0
        self._writer = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
            log = self._events.SessionLog
            self._writer.write_event(self._events.Event(step=first_step, session_log=log(status=log.START)))
        except OSError as error:
            self._give_up(error)

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        now, summary = time.time(), self._summaries.Summary
        values = [summary.Value(tag=name, simple_value=float(value)) for name, value in numbers.items()]
        try:
            self._writer.write_event(self._events.Event(wall_time=now, step=step, summary=summary(value=values)))
            if now - self._flushed > FLUSH_EVERY:
                self._writer.flush()
                self._flushed = now
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # what is left in its buffer
                self._writer._py_recordio_writer.close()
        self._writer = None
        _LOG.warning("%s: cannot be written (%s); TensorBoard is left out from here on", self._folder, error.strerror)
