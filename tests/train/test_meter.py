"""Rates and percentiles of a clock that the test sets."""

import types

import jax
import numpy as np
import pytest

from jaxgpt.train import meter
from jaxgpt.train.meter import Meter, peak_memory


@pytest.fixture
def clock(monkeypatch):
    """Set it by `clock.now = ...`."""
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(meter.time, "perf_counter", lambda: clock.now)
    return clock


def test_rates_are_since_the_last_line(clock):
    measured = Meter(tokens=1000, flops=2_000_000, peak=1e10, step=5)
    clock.now = 102.0
    first = measured.since(9)
    assert (first["seconds"], first["tokens_per_second"]) == (2.0, 2000)
    assert first["share_of_peak"] == 0.4, "2,000 tokens/s of 2 MFLOPs, of 10 GFLOP/s"
    clock.now = 103.0
    second = measured.since(10)
    assert (second["seconds"], second["tokens_per_second"], second["share_of_peak"]) == (3.0, 1000, 0.2)
    assert "share_of_peak" not in Meter(1000, 2_000_000, None, 0).since(1)


def test_percentiles_are_of_whole_steps(clock):
    """Not of the first, which compiles, nor of what came between steps; and every step is in one line."""
    measured = Meter(1, 1, None, 0)

    def step(seconds):
        clock.now += seconds
        measured.lap()

    step(60.0)
    assert not any(name.startswith("step_seconds") for name in measured.since(1))
    times = [0.5, 1.0, 1.5, 9.0]
    for seconds in times:
        step(seconds)
    clock.now += 1000.0  # validation
    measured.resume()
    step(2.0)
    found = measured.since(6)
    wanted = np.percentile([*times, 2.0], [50, 90, 99])
    np.testing.assert_allclose([found[f"step_seconds_p{p}"] for p in (50, 90, 99)], wanted)
    step(3.0)
    assert measured.since(7)["step_seconds_p99"] == 3.0


def test_memory_is_the_fullest_devices_where_they_say(monkeypatch):
    devices = [types.SimpleNamespace(memory_stats=lambda used=used: {"peak_bytes_in_use": used}) for used in (7, 9, 8)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert peak_memory() == 9


@pytest.mark.parametrize("platform", [meter.sys.platform, "darwin"])
def test_memory_is_the_process_where_they_do_not(monkeypatch, platform):
    monkeypatch.setattr(meter.sys, "platform", platform)
    before = peak_memory()
    assert before > 2**16
    if platform == "linux":
        ones = np.ones(before, np.uint8)  # as much again
        assert peak_memory() >= before + ones.nbytes // 4
