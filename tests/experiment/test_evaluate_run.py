"""Evaluating a trained run under another scaling, for real but tiny."""

import pytest

from jaxgpt.config import encode
from jaxgpt.errors import CheckpointError, ConfigError
from jaxgpt.experiment import evaluate_run, worker
from jaxgpt.experiment.engine import _ask, prepare
from jaxgpt.launch.machine import thread_environment

FEW = [
    "evaluate.protocols.fixed_target.multiples=[0.25,1]",
    "evaluate.protocols.fixed_target.places=4",
    "evaluate.protocols.non_overlapping=null",
    "evaluate.protocols.sliding=null",
    "evaluate.protocols.by_position=null",
]


@pytest.fixture
def run(toy, monkeypatch):
    """A trained run with its evaluations, rope's own and YaRN's."""
    for name, value in thread_environment(1).items():
        monkeypatch.setenv(name, value)
    plan = toy.plan(["evaluate.protocols.fixed_target.multiples=[0.25,1]"], seeds=1)
    run = plan.runs[1]
    _ask(plan, run, prepare(plan))
    worker.execute(run.folder.path)
    return run


def test_a_run_is_measured_as_its_experiment_would(run, capsys):
    done = run.folder.evaluations()
    own, yarn = ([one["value"] for one in done[asked.hash]["measurements"]] for asked in run.evaluations)
    assert [one.value for one in evaluate_run.measure(run.folder.path, FEW)[0]] == own
    extend = ["extend.type=yarn", "extend.factor=4"]
    assert [one.value for one in evaluate_run.measure(run.folder.path, [*FEW, *extend])[0]] == yarn
    assert evaluate_run.main(["--run", str(run.folder.path), "--set", *FEW, *extend]) == 0
    printed = capsys.readouterr().out
    assert "16 = L" in printed
    assert "fixed target" in printed

    assert evaluate_run.main(["--run", str(run.folder.path), "--set", "train.steps=3"]) == 2
    assert "--set train: cannot change what is trained; " in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="position/table"):
        evaluate_run.measure(run.folder.path, [*FEW, "model.position.type=learned"])
    with pytest.raises(ConfigError, match="extend: rope is what can be scaled"):
        evaluate_run.measure(run.folder.path, [*FEW, "model.position.type=alibi", "extend.type=linear"])
    assert encode(run.arm.model)["position"]["scaling"] is None


def test_mistakes_are_one_line(tmp_path, capsys):
    assert evaluate_run.main(["--run", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}: is no run folder (no config.yaml)\n"
    assert evaluate_run.main(["--run", str(tmp_path), "--length", "0"]) == 2
    assert "--length 0: expected 1 or more" in capsys.readouterr().err
