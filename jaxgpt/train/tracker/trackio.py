"""Trackio."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from jaxgpt.errors import ConfigError, from_extra
from jaxgpt.registry import register
from jaxgpt.train.tracker.base import TrackedRun, Tracker, TrackerConfig


@register("trackio")
@dataclasses.dataclass(frozen=True)
class TrackioConfig(TrackerConfig):
    """Trackio (extra `trackio`): a database of this machine, in TRACKIO_DIR, that `trackio show` opens. Nothing leaves
    the machine unless the environment names a place (TRACKIO_SPACE_ID, TRACKIO_SERVER_URL). A run that goes on
    continues the same; what it does again after a crash is there twice.
    """

    project: str = "jaxgpt"

    def check(self) -> None:
        _library()

    def make(self, run: TrackedRun) -> Trackio:
        return Trackio(self, run)


class Trackio(Tracker):
    def __init__(self, config: TrackioConfig, run: TrackedRun):
        with _quietly():
            self._run = _library().init(
                project=config.project,
                name=run.identifier,
                config=dict(run.settings),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        with _quietly():
            _library().finish()


def _quietly() -> contextlib.redirect_stdout[Any]:
    """What it has to say goes where the progress of training goes."""
    return contextlib.redirect_stdout(sys.stderr)


def _library() -> Any:
    return from_extra("trackio", "trackio", "train.trackers: trackio needs", ConfigError)
