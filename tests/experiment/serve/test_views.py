from __future__ import annotations

import shutil

import pytest

from jaxgpt.experiment.serve.views import Views
from jaxgpt.experiment.serve.watch import NotFound, Store
from tests.experiment.serve.conftest import Shelf, write


def test_experiments_with_runs_by_state(full: Shelf):
    full.run("nope", state="failed", experiment="other")
    full.run("nope", 1, state="running", experiment="other")
    other, trial = Views(Store(full.root)).experiments()["experiments"]
    assert (other["name"], other["states"], other["report"]) == ("other", {"failed": 1, "interrupted": 1}, False)
    assert (trial["title"], trial["runs"], trial["report"]) == ("RoPE or ALiBi?", 7, True)
    assert trial["changed"] > 1.7e9


def test_an_experiment_lists_runs_by_arm_and_settings_that_differ(full: Shelf):
    found = Views(Store(full.root)).experiment("trial")
    assert [(run["arm"], run["seed"]) for run in found["runs"]] == [
        *(("alibi", seed) for seed in range(3)),
        *(("rope", seed) for seed in range(3)),
        ("5-gram", None),
    ]
    rope = found["runs"][3]
    assert (rope["label"], rope["state"], rope["step"], rope["steps"]) == ("RoPE", "finished", 200, 200)
    assert rope["evaluated"] == [2, 2]
    assert found["differences"]["names"] == ["alibi", "RoPE", "yarn"]
    assert found["differences"]["keys"] == {"model.position.type": ['"alibi"', '"rope"', '"yarn"']}
    assert found["comparison"][0]["name"] == "Fixed targets: perplexity"


def test_the_comparison_follows_the_evaluations(full: Shelf):
    views = Views(Store(full.root))
    before = views.experiment("trial")["comparison"]
    assert views.experiment("trial")["comparison"] is before
    write(full.root / "trial" / "rope-seed0-0abc" / "evaluation.json", {})
    after = views.experiment("trial")["comparison"]
    assert after[0]["arms"]["rope"]["count"] == [2, 2, 2]


def test_curves_of_arms_and_of_runs(full: Shelf):
    views = Views(Store(full.root))
    arms = views.curves("trial", "tokens")["curves"]
    assert [one["label"] for one in arms] == ["alibi", "RoPE"]
    assert arms[0]["training"]["count"] == [3] * 20
    assert len(arms[0]["validation"]["x"]) == 5
    runs = views.curves("trial", "step", single=True)["curves"]
    assert [one["label"] for one in runs][:2] == ["alibi seed 0", "alibi seed 1"]
    assert runs[0]["training"]["low"] == [None] * 20


def test_what_differs_between_two_runs(full: Shelf):
    views = Views(Store(full.root))
    write(
        full.root / "trial" / "alibi-seed1-0abc" / "environment.json", {"python": "3.12", "packages": {"jax": "0.10"}}
    )
    found = views.between("trial", "rope-seed0-0abc", "alibi-seed1-0abc")["keys"]
    assert found == {
        "seed": ["0", "1"],
        "model.position.type": ['"rope"', '"alibi"'],
        "environment.python": ['"3.11"', '"3.12"'],
    }
    assert views.between("trial", "rope-seed0-0abc", "rope-seed0-0abc")["keys"] == {}


def test_all_of_one_run(full: Shelf):
    folder = full.root / "trial" / "rope-seed1-0abc"
    (folder / "attempts.jsonl").write_text('{"host": "node1", "ended": {"code": 1}}\n')
    found = Views(Store(full.root)).run("trial", folder.name, "step")
    assert (found["name"], found["arm"], found["look"]["name"]) == (folder.name, "rope", "rope")
    assert found["config"]["model.width"] == "32"
    assert found["environment"]["packages.jax"] == '"0.10"'
    assert found["attempts"] == [{"host": '"node1"', "ended.code": "1"}]
    assert [one["variant"] for one in found["evaluations"]] == ["rope", "yarn"]
    assert len(found["curves"][0]["training"]["x"]) == 20
    assert (found["shown"], found["numbers"]) == ("loss", ["loss", "tokens_per_second"])
    other = Views(Store(full.root)).run("trial", folder.name, "tokens", "tokens_per_second")
    assert other["curves"][0]["training"]["mean"] == [1280] * 20
    assert Views(Store(full.root)).run("trial", folder.name, "step", "nonsense")["shown"] == "loss"
    shutil.rmtree(folder)
    with pytest.raises(NotFound):
        Views(Store(full.root)).run("trial", folder.name, "step")
