"""Traces: of the steps that were asked for, also where a run is interrupted, and never at the cost of the run."""

import gzip
import json
import re

import jax
import pytest

from jaxgpt.errors import ConfigError, Interrupted
from jaxgpt.train.loop import train
from jaxgpt.train.profiler import Profiler


def traced_steps(folder):
    """The numbers of the steps in each trace of a run, in the order of the traces."""
    found = []
    for path in sorted(folder.glob("profile/plugins/profile/*/*.trace.json.gz")):
        assert list(path.parent.glob("*.xplane.pb")), "for XProf and TensorBoard"
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        found.append(sorted(int(event["args"]["step_num"]) for event in events if event.get("name") == "train"))
    return found


def test_a_trace_has_the_steps_that_were_asked_for(tiny, tmp_path, read_status):
    train(tiny("train.profile_steps=[3, 6]"), tmp_path / "run")
    assert traced_steps(tmp_path / "run") == [[3, 4, 5, 6]]
    assert read_status(tmp_path / "run")["state"] == "trained"


def test_an_interrupted_trace_is_written_and_the_rest_is_another(tiny, tmp_path, monkeypatch, interrupt_after):
    config = tiny("train.profile_steps=[2, 8]")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(Interrupted, match="at step") as caught:
            train(config, tmp_path / "run")
    found = re.search(r"at step (\d)", str(caught.value))
    assert found is not None
    stopped = int(found[1])
    assert traced_steps(tmp_path / "run") == [[*range(2, stopped + 1)]]
    train(config, tmp_path / "run")
    assert traced_steps(tmp_path / "run") == [[*range(2, stopped + 1)], [*range(stopped + 1, 9)]]


def test_a_trace_that_fails_is_one_warning(tiny, tmp_path, monkeypatch, caplog, read_status):
    def fails():
        stop()
        raise RuntimeError("the disk is full")

    stop = jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "stop_trace", fails)
    train(tiny("train.profile_steps=[2, 3]", "train.steps=5"), tmp_path / "run")
    assert read_status(tmp_path / "run")["state"] == "trained"
    assert [record.getMessage() for record in caplog.records if "trace" in record.getMessage()] == [
        f"{tmp_path}/run/profile: no trace was written (the disk is full)"
    ]


def test_one_that_does_not_begin_is_one_warning(tmp_path, monkeypatch, caplog):
    def fails(folder):
        raise RuntimeError("only one profile may be run at a time")

    monkeypatch.setattr(jax.profiler, "start_trace", fails)
    profiler = Profiler(tmp_path / "profile", (1, 2))
    for step in (1, 2):
        with profiler.step(step):
            pass
    profiler.close()
    assert len(caplog.records) == 1


def test_without_steps_nothing_is_traced(tmp_path):
    profiler = Profiler(tmp_path / "profile", None)
    with profiler.step(1):
        pass
    assert not profiler.is_edge(1)
    profiler.done(1)
    profiler.close()
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize("steps", ["[3]", "[0, 2]", "[4, 3]", "[1, 2, 3]"])
def test_steps_must_be_a_first_and_a_last(tiny, steps):
    with pytest.raises(ConfigError, match=r"train: profile_steps must be the first and the last step of a trace"):
        tiny(f"train.profile_steps={steps}")


def test_steps_beyond_the_end_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"profile_steps begin at 10, and there are 9 steps"):
        tiny("train.profile_steps=[10, 12]")
