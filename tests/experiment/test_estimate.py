import json

import pytest

from jaxgpt.experiment import estimate as module
from jaxgpt.experiment.estimate import Size, estimate, measure_peak, memory_of, needs_of
from jaxgpt.launch.machine import GIB
from jaxgpt.launch.task import Needs

SIZES = {name: Size(10**6, 6 * 10**6, 10**6, "data") for name in ("rope", "alibi")}
SIZES["yarn"] = Size(10**6, 6 * 10**6, 0, "data")
FLOPS = 6e12


@pytest.fixture
def peak(monkeypatch):
    monkeypatch.setattr(module, "measure_peak", lambda threads: 1e11)


def models(plan):
    return [run for run in plan.runs if run.kind == "model"]


@pytest.mark.usefixtures("peak")
def test_without_history_from_the_peak(toy):
    plan = toy.plan()
    rope, alibi = (module.START_SECONDS + FLOPS / 0.3e11 * (1 + 0.2 * evaluations) for evaluations in (2, 1))
    guess = estimate(plan, SIZES, plan.runs, workers=2)
    assert guess.seconds == pytest.approx((2 * rope + 2 * alibi) / 2)
    assert "30% of this machine's matrix-product peak (100 GFLOP/s with 1 thread)" in guess.basis
    assert estimate(plan, SIZES, plan.runs, workers=99).seconds == pytest.approx(rope)
    assert estimate(plan, SIZES, [], workers=2).seconds == 0


@pytest.mark.usefixtures("peak")
def test_what_is_done_is_not_counted(toy):
    plan = toy.plan()
    run = models(plan)[0]
    run.folder.path.mkdir(parents=True)
    whole = estimate(plan, SIZES, [run], 1).seconds
    run.folder.update_status(state="interrupted", step=3, steps=4)
    assert estimate(plan, SIZES, [run], 1).seconds == pytest.approx(whole - 0.75 * FLOPS / 0.3e11)
    run.folder.update_status(state="trained", step=4)
    assert estimate(plan, SIZES, [run], 1).seconds == pytest.approx(whole - FLOPS / 0.3e11)
    run.folder.update_status(state="pending", step=0)
    (run.folder.path / "evaluation.json").write_text(json.dumps({run.evaluations[0].hash: {}}))
    assert estimate(plan, SIZES, [run], 1).seconds == pytest.approx(whole - 0.2 * FLOPS / 0.3e11)


def test_history_beats_guesses(toy):
    plan = toy.plan()
    for name, threads in (("old", 1), ("threaded", 2), ("broken", 1)):
        folder = toy.runs / "other" / name
        folder.mkdir(parents=True)
        request = {"threads": threads, "flops_per_token": 10**6, "tokens": 1000}
        (folder / "request.json").write_text(json.dumps(request if name != "broken" else {"threads": 1}))
        (folder / "status.json").write_text('{"state": "finished"}')
        (folder / "metrics.jsonl").write_text('{"step": 1, "tokens": 1000, "loss": 1, "tokens_per_second": 2000}\n')
        (folder / "evaluation.json").write_text('{"a": {"seconds": 0.1}, "b": {"seconds": 0.15}}')
    guess = estimate(plan, SIZES, models(plan)[:1], 1)
    assert guess.basis == "1 earlier run at 2 GFLOP/s"
    assert guess.seconds == pytest.approx(module.START_SECONDS + FLOPS / 2e9 * 1.5)


def test_the_peak_is_measured():
    assert 1e8 < measure_peak(1) < 1e13


def test_memory_and_devices(toy):
    plan = toy.plan()
    small = memory_of(SIZES["rope"], plan.arms[0])
    assert GIB < small < 1.1 * GIB
    assert memory_of(Size(10**9, 1, 1, ""), plan.arms[0]) > 16e9
    assert needs_of(plan, SIZES) == Needs(threads=1, memory=small, devices=1)
    meshed = toy.plan(["train.mesh={data: 2}"])
    assert needs_of(meshed, SIZES).devices == 2
