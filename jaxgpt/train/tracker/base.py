"""The one interface between the records of a run and whatever else shows them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxgpt.errors import first_line
from jaxgpt.registry import kind_of, slot

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """What a tracker knows of a run."""

    directory: Path
    settings: Mapping[str, Any]  # its configuration as plain values
    first_step: int  # of those that will be recorded; above 1 where a run goes on

    @property
    def identifier(self) -> str:
        """The same however often a run goes on in its folder, and of no other folder of this machine: the folder's
        name, and a digest of its place."""
        place = self.directory.resolve()
        name = re.sub(r"[^\w.-]", "-", place.name, flags=re.ASCII)
        return f"{name[:100]}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"


class Tracker:
    """A copy of a run's numbers, to look at. It may raise whatever it likes: see `Trackers`."""

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a step, by name. A step may come in several parts."""
        raise AssertionError("every tracker defines add")

    def close(self) -> None:
        """No more will come."""

    def abandon(self) -> None:
        """Let go of what is open, after it failed."""


@slot("tracker", package="jaxgpt.train.tracker")
@dataclasses.dataclass(frozen=True)
class TrackerConfig:
    """Where the numbers of a run are shown, beside metrics.jsonl."""

    def check(self) -> None:
        """Raise ConfigError where its library is not installed."""

    def make(self, run: TrackedRun) -> Tracker:
        raise TypeError(f"{type(self).__qualname__} must define make()")


class Trackers:
    """All of a run. The lines of metrics.jsonl are the truth, and these copies of them: one that fails, of a full disk
    or a lost network, is given up with one warning, and training goes on."""

    def __init__(self, configs: Iterable[TrackerConfig], run: TrackedRun):
        self._run = run
        self._working: dict[TrackerConfig, Tracker] = {}
        for config in configs:
            with self._given_up_if_it_fails(config):
                self._working[config] = config.make(run)

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        for config, tracker in tuple(self._working.items()):
            with self._given_up_if_it_fails(config):
                tracker.add(step, numbers)

    def close(self) -> None:
        for config, tracker in tuple(self._working.items()):
            with self._given_up_if_it_fails(config):
                tracker.close()

    @contextlib.contextmanager
    def _given_up_if_it_fails(self, config: TrackerConfig) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every library has its own
            tracker = self._working.pop(config, None)
            if tracker is not None:
                with contextlib.suppress(Exception):
                    tracker.abandon()
            reason = getattr(error, "strerror", None) or first_line(error)
            _LOG.warning("%s: %s is left out from here on (%s)", self._run.directory, kind_of(config), reason)
