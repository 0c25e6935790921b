"""How fast a run is, and what it takes of its machine, as the host sees it: no device is asked to wait."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import jax
import numpy as np

PERCENTILES = (50, 90, 99)


class Meter:
    """The numbers between two lines of metrics.jsonl.

    tokens: per step.
    flops: of the model per token, forward and backward.
    peak: FLOP/s that all devices of the run have together; None: not known.
    """

    def __init__(self, tokens: int, flops: int, peak: float | None, step: int):
        self.tokens, self._flops, self._peak = tokens, flops, peak
        self._began = self._last = time.perf_counter()
        self._step = step
        self._lap: float | None = None  # when the step before ended; the first one has none, for it compiles
        self._laps: list[float] = []

    def lap(self) -> None:
        """A step has ended."""
        now = time.perf_counter()
        if self._lap is not None:
            self._laps.append(now - self._lap)
        self._lap = now

    def resume(self) -> None:
        """What came since the last step, validation say, belongs to none."""
        self._lap = time.perf_counter()

    def since(self, step: int) -> dict[str, float]:
        """What a line says of the steps since the one before: `seconds` since the start, `tokens_per_second` of all
        that time, `share_of_peak` where the peak is known (model FLOPs, Chowdhery et al. 2022, arXiv:2204.02311,
        appendix B, over dense bfloat16 FLOPs), percentiles of the seconds from the end of one step to the end of the
        next (`step_seconds_p50`, ...), and `peak_memory_bytes`."""
        now = time.perf_counter()
        speed = (step - self._step) * self.tokens / max(now - self._last, 1e-9)
        found = {"seconds": round(now - self._began, 3), "tokens_per_second": round(speed)}
        if self._peak is not None:
            found["share_of_peak"] = round(speed * self._flops / self._peak, 4)
        if self._laps:
            times = np.percentile(self._laps, PERCENTILES)
            found |= {f"step_seconds_p{p}": round(float(t), 6) for p, t in zip(PERCENTILES, times, strict=True)}
        found["peak_memory_bytes"] = peak_memory()
        self._last, self._step, self._laps = now, step, []
        return found


def peak_memory() -> int:
    """The most bytes that were in use at once: of a device of this process, the fullest, or where devices do not say
    (CPUs), of the process."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    return max(one.get("peak_bytes_in_use", 0) for one in statistics) or _peak_resident()


def _peak_resident() -> int:
    # On Linux getrusage begins at the size of the process that started this one; there the kernel has it better.
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
