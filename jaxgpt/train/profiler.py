"""A trace of some steps: what ran when, on the host and on every device."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxgpt.errors import first_line

_LOG = logging.getLogger(__name__)


class Profiler:
    """Writes a trace of `steps`, the first and the last, to a folder; of those of them that a run does.

    To look at it: `pip install xprof && xprof RUN/profile` (or TensorBoard with that plugin) for time by operation,
    memory and the input pipeline; or open `RUN/profile/plugins/profile/<time>/<host>.trace.json.gz` at
    https://ui.perfetto.dev for the timeline. Tracing takes time and memory: a few steps are enough, and better not the
    first, which compiles. A trace that fails is given up with one warning, and training goes on.
    """

    def __init__(self, folder: Path, steps: tuple[int, ...] | None):
        self._folder, self._steps = folder, steps
        self._tracing = False

    def is_edge(self, step: int) -> bool:
        """Whether a trace begins or ends between this step and the next: the devices should have done with it."""
        return self._steps is not None and step in (self._steps[0] - 1, self._steps[1])

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Around the dispatch of a step."""
        if self._steps is None or not self._steps[0] <= step <= self._steps[1]:
            yield
            return
        if not self._tracing:
            self._start()
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def done(self, step: int) -> None:
        """A step is done, its metrics read."""
        if self._steps is not None and step >= self._steps[1]:
            self.close()

    def close(self) -> None:
        """End a trace that is running, wherever it is."""
        if self._tracing:
            self._tracing = False
            try:
                jax.profiler.stop_trace()
            except Exception as error:  # the profiler's own, and the disk's
                self._give_up(error)

    def _start(self) -> None:
        try:
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._steps = None
        _LOG.warning("%s: no trace was written (%s)", self._folder, first_line(error))
