"""TensorBoard's copy of a run's metrics."""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgpt.registry import register
from jaxgpt.train.tracker.base import TrackedRun, Tracker, TrackerConfig

FLUSH_EVERY = 10.0  # seconds


@register("tensorboard")
@dataclasses.dataclass(frozen=True)
class TensorBoardConfig(TrackerConfig):
    """Event files in the folder `tensorboard` of the run: `tensorboard --logdir RUNS`. `train.tensorboard` switches it
    on too."""

    def make(self, run: TrackedRun) -> TensorBoard:
        return TensorBoard(run.directory / "tensorboard", run.first_step)


class TensorBoard(Tracker):
    """Numbers by step, written by whoever calls; a resumed run's hide those after its first step.

    Not tensorboardX's own writer: when its thread dies of a full disk, its queue fills, and training stands still.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter

        # Messages are made when their modules are imported, out of sight of type checkers.
        self._events: Any = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summaries: Any = importlib.import_module("tensorboardX.proto.summary_pb2")
        self._flushed = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        log = self._events.SessionLog
        self._writer.write_event(self._events.Event(step=first_step, session_log=log(status=log.START)))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        now, summary = time.time(), self._summaries.Summary
        values = [summary.Value(tag=name, simple_value=float(value)) for name, value in numbers.items()]
        self._writer.write_event(self._events.Event(wall_time=now, step=step, summary=summary(value=values)))
        if now - self._flushed > FLUSH_EVERY:
            self._writer.flush()
            self._flushed = now

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        self._writer._py_recordio_writer.close()
