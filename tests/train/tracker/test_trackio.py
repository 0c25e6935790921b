"""What Trackio is told: by a library that only listens, and with the real one (marked `extras`)."""

import json
import sys
import types

import pytest

from jaxgpt.train.tracker.base import TrackedRun
from jaxgpt.train.tracker.trackio import TrackioConfig


def test_it_is_told_the_run_its_settings_and_every_number(tmp_path, monkeypatch, capsys):
    said = []
    run = types.SimpleNamespace(log=lambda numbers, step: said.append((step, numbers)))
    library = types.ModuleType("trackio")
    library.init = lambda **given: print("* welcome") or said.append(given) or run
    library.finish = lambda: said.append("finish")
    monkeypatch.setitem(sys.modules, "trackio", library)
    tracked = TrackedRun(tmp_path / "run", {"seed": 1}, 5)
    tracker = TrackioConfig(project="p").make(tracked)
    tracker.add(5, {"loss": 1.5})
    tracker.close()
    opened, *rest = said
    assert rest == [(5, {"loss": 1.5}), "finish"]
    wanted = {"project": "p", "name": tracked.identifier, "config": {"seed": 1}, "resume": "allow"}
    assert wanted.items() <= opened.items()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "* welcome\n")


@pytest.mark.extras
def test_a_run_that_goes_on_is_one_run_of_the_real_one(trained_twice, command):
    folder, losses = trained_twice("trackio")
    name = TrackedRun(folder, {}, 1).identifier
    asked = ("--project", "jaxgpt", "--run", name, "--metric", "loss", "--json")
    values = json.loads(command("-m", "trackio.cli", "get", "metric", *asked)[0])["values"]
    assert {value["step"]: value["value"] for value in values} == pytest.approx(losses)
    assert [value["step"] for value in values] == [*range(1, 10), 9]
    runs, _ = command("-m", "trackio.cli", "list", "runs", "--project", "jaxgpt", "--json")
    assert runs.count(f'"{name}"') == 1
