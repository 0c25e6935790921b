"""Experiments that begin with a checkpoint: `base: {from: FOLDER}`."""

import json
import math
import os
import shutil

import pytest

from jaxgpt.errors import CheckpointError, ConfigError
from jaxgpt.experiment import cli
from jaxgpt.experiment.claims import Claim, evaluate_claims
from jaxgpt.experiment.collect import make_report, results_of
from jaxgpt.experiment.contrasts import at_least, nll
from jaxgpt.experiment.report import Report, write_report
from jaxgpt.experiment.report.saved import read_report
from jaxgpt.experiment.results import Results, Row
from jaxgpt.experiment.spec import Tuning, load_experiment
from jaxgpt.experiment.tuning import grid_plan
from jaxgpt.experiment.worker import execute
from jaxgpt.train.run import read_config

EXPERIMENT = '''"""What does YaRN give a model that is there already?"""

from jaxgpt.experiment.claims import Claim, R, at_most, nll
from jaxgpt.experiment.spec import Variant, share, times

TUNED = {"train": {"steps": share(0.5)}, "data": {"sequence_length": times(4)}}


def base():
    return {"from": FOLDER, "include": "data/toy.yaml"}


def variants():
    return [
        Variant("llama"),
        Variant("yarn", {"extend": {"type": "yarn", "factor": 4.0}}, parent="llama"),
        Variant("yarn-tuned", {"extend": {"type": "yarn", "factor": 4.0}, **TUNED}, parent="llama"),
        Variant("on", {"train": {"learning_rate": 1e-3}}),
    ]


def claims():
    return [
        Claim("given", "Nothing trained", at_most(nll("yarn", 1) - nll("llama", 1), 0.1)),
        Claim("tuned", "Against what is given", at_most(nll("yarn-tuned", 4) - nll("llama", 4), 5.0), gate=None),
    ]
'''


@pytest.fixture
def loaded(toy, llama_checkpoint):
    """The toy's text and scale, and an experiment on a checkpoint of transformers without a tokenizer of its own."""
    folder = shutil.copytree(llama_checkpoint, toy.root / "llama")
    scale = toy.configs / "scale" / "small.yaml"  # what a scale says of sizes and lengths is not a checkpoint's
    more = "config:\n  model: {num_layers: 3}\n  data: {sequence_length: 32, tokenizer: {type: bpe}}\n"
    scale.write_text(scale.read_text().replace("config:\n", more))
    data = toy.configs / "data" / "toy.yaml"
    data.write_text(data.read_text().replace(", sequence_length: 16", ""))
    (toy.experiments / "toy.py").write_text(EXPERIMENT.replace("FOLDER", repr(str(folder))))
    return toy


def test_what_the_folder_decides(loaded):
    arms = {arm.name: arm for arm in loaded.plan().arms}
    llama = arms["llama"].training
    assert (llama.model.num_layers, llama.data.sequence_length, llama.train.steps) == (2, 16, 0)
    assert llama.start.folder == str(loaded.root / "llama")
    assert [arm.given for arm in arms.values()] == [True, True, False, False]
    assert arms["yarn"].training == llama
    tuned = arms["yarn-tuned"]
    assert (tuned.training.train.steps, tuned.training.data.sequence_length, tuned.length) == (2, 64, 16)
    assert tuned.model.train_length == 16
    assert (arms["on"].training.train.steps, arms["on"].training.start) == (4, llama.start)


def test_given_weights_are_measured_once(loaded):
    plan = loaded.plan(seeds=3)
    names = [(run.variant, run.seed) for run in plan.runs if run.kind == "model"]
    assert names.count(("llama", 0)) == 1
    assert ("llama", 1) not in names
    assert [seed for name, seed in names if name == "yarn-tuned"] == [0, 1, 2]
    assert {run.after for run in plan.runs if run.variant == "yarn-tuned"} == {
        next(run.name for run in plan.runs if run.variant == "llama")
    }
    trials = grid_plan(plan, Tuning())
    assert {run.variant.split("-")[1] for run in trials.runs} == {"on"}


@pytest.mark.slow
def test_it_runs_and_is_reported(loaded, capsys):
    arguments = ["--exp", "toy", "--scale", "small", "--runs-dir", str(loaded.runs), "--seeds", "3"]
    code = cli.main([*arguments, "--workers", "1"], loaded.experiments, loaded.configs)
    assert code == 0, capsys.readouterr().err
    plan = loaded.plan(seeds=3)
    results = results_of(plan)
    context = 64
    assert list(results.values("llama", "fixed_target_nll", context)) == [0]
    assert results.values("yarn", "fixed_target_nll", context) != results.values("llama", "fixed_target_nll", context)
    assert all(map(math.isfinite, results.values("yarn-tuned", "fixed_target_nll", context).values()))
    per_seed, _ = (nll("yarn-tuned", 4) - nll("llama", 4)).per_seed(results)
    assert list(per_seed) == [0, 1, 2]
    report = make_report(plan, "x")
    given, tuned = report.verdicts
    assert (given.verdict, given.seeds) == ("not resolved", 1)
    assert "all weights are given" in given.reason
    assert (tuned.verdict, tuned.seeds) == ("supported", 3)
    weights = {line["variant"]: line["weights"] for line in report.runs}
    assert weights == {
        "llama": "of llama",
        "yarn": "of llama",
        "yarn-tuned": "of llama, trained further",
        "on": "of llama, trained further",
    }
    assert not list(loaded.runs.glob("toy/llama-*/checkpoints"))


def test_a_run_may_be_the_folder_too(loaded):
    plan = loaded.plan()
    run = next(run for run in plan.runs if run.variant == "on")
    path = run.folder.path
    path.mkdir(parents=True)
    request = {"kind": "model", "config": run.config, "evaluations": []}
    (path / "request.json").write_text(json.dumps(request))
    execute(path)
    text = EXPERIMENT.replace("FOLDER", repr(os.fspath(path))).replace('"include": "data/toy.yaml"', "")
    (loaded.experiments / "toy.py").write_text(text)
    arms = {arm.name: arm for arm in loaded.plan().arms}
    llama = arms["llama"].training
    old = read_config(path)
    assert (llama.model, llama.data, llama.start.hash) == (old.model, old.data, old.hash)


def test_another_kind_of_data_keeps_the_length(loaded):
    own = '"data": {"type": "tokens", "path": "somewhere", "tokenizer": "byte"}'
    text = EXPERIMENT.replace("FOLDER", repr(str(loaded.root / "llama"))).replace('"include": "data/toy.yaml"', own)
    (loaded.experiments / "toy.py").write_text(text)
    data = loaded.plan().arms[0].training.data
    assert (type(data).__name__, data.sequence_length) == ("TokensDataConfig", 16), "L is the folder's"


def test_given_is_saved_with_the_report(loaded, tmp_path):
    rows = [
        Row("toy", variant, seed, "fixed_target_nll", context, 3.0 + seed / 100 + (variant == "on"), "nats/token")
        for variant, seeds in (("llama", [0]), ("on", [0, 1, 2]))
        for seed in seeds
        for context in (4, 16, 64)
    ]
    claim = Claim("apart", "x", at_least(nll("on", 4) - nll("llama", 4), 0.5), gate=None)
    results = Results(rows, 16, given=["llama"])
    report = Report("toy", "t", results, evaluate_claims([claim], results))
    write_report(report, tmp_path / "report")
    (verdict,) = read_report(tmp_path / "report", [claim]).verdicts
    assert (verdict.verdict, verdict.seeds) == ("supported", 3)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"include"', '"model": {"width": 8}, "include"', "base.. has `from` and `model`"),
        (
            'Variant("llama")',
            'Variant("llama", {"start": {"add": ["x"]}})',
            "may override model, data, train, extend, not",
        ),
        ('return {"from": ', 'return {"from": 5 and None, "x": ', "base.*: from: must be a folder, got None"),
        (', "include": "data/toy.yaml"', "", "llama: has no tokenizer.json"),
        ("def claims", 'def match():\n    return "flops"\n\n\ndef claims', "flops cannot be matched where base"),
    ],
)
def test_what_cannot_be(loaded, before, after, message):
    file = loaded.experiments / "toy.py"
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(ConfigError, match=message):
        loaded.plan()


def test_a_folder_without_a_model(loaded):
    (loaded.root / "llama" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="llama: is no run folder"):
        loaded.plan()
    assert load_experiment("toy", loaded.experiments).folder == loaded.root / "llama"
