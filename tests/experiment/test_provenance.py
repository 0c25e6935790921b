"""Whether the runs of one table were made with the same."""

import json

from jaxgpt.experiment.provenance import differences, made_with, missing

ENVIRONMENT = {
    "code": {"digest": "aaa", "commit": "c1"},
    "packages": {"jax": "0.10.2", "numpy": "2.0"},
    "python": "3.11.7",
    "processor": "Xeon",
    "platform": "Linux-1",
    "nproc": "1",
    "variables": {},
    "devices": ["TFRT_CPU_0"],
}


def leave(run, evaluated="aaa", **changes):
    run.folder.path.mkdir(parents=True, exist_ok=True)
    (run.folder.path / "environment.json").write_text(json.dumps({**ENVIRONMENT, **changes}))
    done = {"h": {"hash": "h", "code": evaluated, "measurements": []}}
    (run.folder.path / "evaluation.json").write_text(json.dumps(done))


def test_equal_runs_need_no_word(toy):
    plan = toy.plan()
    for run in plan.runs[1:]:
        leave(run, platform=f"Linux-{run.seed}")
    assert differences(plan) == []


def test_a_run_that_went_on_with_something_else_says_both(toy):
    plan = toy.plan()
    for run in plan.runs[1:]:
        leave(run)
    half = {**ENVIRONMENT, "packages": {"jax": "0.9", "numpy": "2.0"}}
    leave(plan.runs[4], earlier=[half])
    [sentence] = differences(plan)
    assert sentence.startswith("the runs differ in jax: 0.10.2 (")
    assert f"0.9, then 0.10.2 ({plan.runs[4].name})" in sentence


def test_what_differs_is_named_with_the_runs(toy):
    plan = toy.plan()
    for run in plan.runs[1:4]:
        leave(run)
    leave(plan.runs[4], "bbb", code={"digest": "bbb"}, packages={"jax": "0.11", "numpy": "2.0"}, processor="EPYC")
    found = differences(plan)
    assert [sentence.split(":")[0] for sentence in found] == [
        "the runs differ in processor",
        "the runs differ in code",
        "the runs differ in jax",
        "the runs differ in code of the evaluation",
    ]
    assert f"0.11 ({plan.runs[4].name})" in found[2]
    assert plan.runs[1].name in found[2]


def test_many_runs_are_counted_by_variant(toy):
    plan = toy.plan(seeds=8)
    for run in plan.runs[1:]:
        leave(run, processor="Xeon" if run.variant == "rope" else "EPYC")
    assert differences(plan) == [
        "the runs differ in processor: Xeon (8 of rope), EPYC (8 of alibi); compare them with care"
    ]


def test_devices_are_counted_by_kind():
    devices = ["NVIDIA H100:0", "NVIDIA H100:1", "cpu:0"]
    assert made_with({"devices": devices})["devices"] == "2 NVIDIA H100, 1 cpu"
    assert made_with({}) == {}


def test_what_is_missing(toy):
    plan = toy.plan()
    plan.runs[1].folder.path.mkdir(parents=True)
    plan.runs[1].folder.quarantine("the loss is nan")
    found = missing(plan)
    assert len(found) == 5
    assert f"{plan.runs[1].name} is not finished: failed (the loss is nan)" in found
    many = missing(toy.plan(seeds=8))
    assert many == [
        "16 of 17 runs are not finished: pending (1 of 5-gram, 8 of alibi, 7 of rope)",
        f"1 of 17 runs are not finished: failed ({plan.runs[1].name})",
    ]
