"""Searches with a worker that only pretends, whose loss is a parabola of the learning rate's logarithm; one for real.

Marked `extras`: they need Optuna.
"""

import dataclasses
import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from rich.console import Console

from jaxgpt.errors import DataError, UserError
from jaxgpt.experiment import cli, engine
from jaxgpt.experiment.plan import make_plan
from jaxgpt.experiment.search import Choice, Float, Int, Median, Search
from jaxgpt.experiment.search.points import Wanted, look
from jaxgpt.experiment.search.trials import Trials
from jaxgpt.experiment.spec import load_experiment, load_scale
from jaxgpt.experiment.verbs import make_work
from jaxgpt.experiment.where import parse_where
from jaxgpt.launch.executor.local import Pool
from jaxgpt.launch.task import Slot
from jaxgpt.lease import locked

pytestmark = pytest.mark.extras

RATE = "train.learning_rate"
ONE = Search({RATE: Float(1e-4, 1.0, log=True)}, trials=6, variants=("rope",), pruner=None)

WORKER = """
import json, math, os, signal, sys, time
folder, rule = sys.argv[1:]
request = json.load(open(folder + "/request.json"))
with open(folder + "/count", "a") as file: file.write("x")
rate = request["config"]["train"]["learning_rate"]
loss = 3 + (math.log10(rate) + 2) ** 2

def put(name, content):
    json.dump(content, open(folder + "/" + name, "w"))

def stop(*_):
    put("status.json", {"state": "interrupted", "step": 6, "steps": 10, "message": "interrupted at step 6, saved"})
    sys.exit(130)

signal.signal(signal.SIGTERM, stop)
if rule == "diverge" and rate > 0.05:
    put("status.json", {"state": "failed", "message": "the loss is nan", "diverged": True})
    put("failed.json", {"message": "the loss is nan"})
    sys.exit(1)
if rule == "always" or (rule == "fail" and rate > 0.05): sys.exit("about to fail")
if rule == "wait": time.sleep(60)
with open(folder + "/metrics.jsonl", "a") as file:
    for step in range(1, 11):
        file.write(json.dumps({"step": step, "validation_loss": loss + 1 / step}) + "\\n")
        file.flush()
        if rule == "prune" and step == 6 and loss > 3.5: time.sleep(60)
value = [{"metric": "non_overlapping_nll", "context": 16, "value": loss, "unit": "nats/token"}]
put("evaluation.json", {one["hash"]: {"measurements": value, "seconds": 0.1} for one in request["evaluations"]})
put("status.json", {"state": "finished", "step": 10, "steps": 10})
"""


def command(rule="none"):
    return lambda run: [sys.executable, "-S", "-c", WORKER, str(run.folder.path), rule]


def begin(toy, search, overrides=()):
    """What searches: the plan, and the source of its runs with their sizes."""
    plan, sizes = toy.plan(overrides), {}
    return plan, Trials(look(plan, search, ()), sizes, lambda runs: None), sizes


def go_on(toy, search, rule="none", workers=2):
    """Search to the end: what was executed, and what is there then."""
    plan, trials, sizes = begin(toy, search)
    pool = Pool([Slot()] * workers, interval=0.02)
    nothing = dataclasses.replace(plan, runs=())
    executed = engine.execute(nothing, pool, sizes, Console(quiet=True), command(rule), source=trials)
    return executed, look(plan, search, ())


def started(toy):
    """How often the worker of each run was started, by the run's name."""
    return {path.parent.name: len(path.read_text()) for path in (toy.runs / "toy").glob("*/count")}


def told(searched):
    return [(one.trial, one.state, one.run.name) for one in searched.found[0].trials]


def test_the_minimum_of_a_parabola_is_found(toy):
    search = dataclasses.replace(ONE, trials=30)
    executed, searched = go_on(toy, search)
    assert searched.decided
    [found] = searched.found
    best = math.log10(found.best.trial.point[RATE])
    assert abs(best + 2) < 0.25
    assert found.best.loss == 3 + (best + 2) ** 2
    assert [one.trial.number for one in found.trials] == list(range(30))
    assert found.count("finished") == 30
    late = [abs(math.log10(one.trial.point[RATE]) + 2) for one in found.trials[15:]]
    early = [abs(math.log10(one.trial.point[RATE]) + 2) for one in found.trials[:10]]
    assert sum(late) / len(late) < sum(early) / len(early), "what was told is what later points are drawn from"
    assert found.importances == {RATE: 1.0}
    assert executed.failures == ()


def test_trials_are_runs_named_by_their_content(toy):
    search = dataclasses.replace(ONE, trials=2, pruner=Median(every=0.5), steps=0.5)
    _, searched = go_on(toy, search)
    for seen in searched.found[0].trials:
        config = seen.run.folder.request()["config"]
        assert seen.run.name == f"search-rope-{seen.run.hash}"
        assert config["train"]["learning_rate"] == seen.trial.point[RATE]
        assert (config["train"]["steps"], config["train"]["validate_every"], config["seed"]) == (2, 1, 1000)
        assert config["data"]["tuning_fraction"] == 0.1
        assert seen.run.folder.request()["variant"] == seen.run.name


def test_nothing_is_done_twice(toy):
    first = go_on(toy, ONE)[1]
    again, searched = go_on(toy, ONE)
    assert again.finished == ()
    assert told(searched) == told(first)
    longer = go_on(toy, dataclasses.replace(ONE, trials=9))[1]
    assert told(longer)[:6] == told(first)
    assert len(longer.found[0].trials) == 9
    assert set(started(toy).values()) == {1}


def test_a_point_that_comes_again_costs_nothing(toy):
    search = Search({RATE: Choice((0.01, 0.02))}, trials=12, variants=("rope",), sampler="random")
    _, searched = go_on(toy, search)
    assert len(searched.found[0].trials) == 12
    assert list(started(toy).values()) == [1, 1]
    assert len(searched.plan.runs) == 2
    another = dataclasses.replace(search, seed=1)  # a study of its own, of the same runs
    assert go_on(toy, another)[1].found[0].count("finished") == 12
    assert list(started(toy).values()) == [1, 1]


def test_many_trials_at_a_time_are_spread_over_variants(toy):
    search = dataclasses.replace(ONE, trials=3, variants=())
    _, trials, _ = begin(toy, search)
    assert Counter(run.variant.split("-")[1] for run in trials.more(4)) == {"rope": 2, "alibi": 2}
    assert Counter(run.variant.split("-")[1] for run in trials.more(4)) == {"rope": 1, "alibi": 1}
    assert trials.more(4) == []


def test_a_killed_search_goes_on_with_its_open_trials(toy):
    plan, trials, sizes = begin(toy, ONE)
    runs = trials.more(3)  # asked for, and then this process is gone
    done = runs[1]
    engine._ask(plan, done, sizes)
    subprocess.run(command()(done), check=True)  # this one had ended, and nobody was told
    searched = look(plan, ONE, ())
    assert searched.found[0].count("unfinished") == 3
    assert not searched.complete
    executed, searched = go_on(toy, ONE)
    assert [one.run.name for one in searched.found[0].trials[:3]] == [run.name for run in runs]
    assert searched.found[0].count("finished") == 6
    assert started(toy)[done.name] == 1
    assert done.name not in {run.name for run in executed.finished}
    assert set(started(toy).values()) == {1}


def test_a_search_that_goes_on_does_not_begin_again_with_the_same_points(toy):
    for count in (2, 4, 6):
        _, searched = go_on(toy, dataclasses.replace(ONE, trials=count))
    points = [one.trial.point[RATE] for one in searched.found[0].trials]
    assert len(set(points)) == 6


def test_one_killed_while_it_asked_leaves_a_trial_without_a_point(toy):
    import optuna

    go_on(toy, dataclasses.replace(ONE, trials=2))
    path = toy.runs / "toy" / "search" / "journal.log"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    [name] = [one.study_name for one in storage.get_all_studies()]
    optuna.load_study(study_name=name, storage=storage).ask()
    with path.open("a") as file:
        file.write('{"op_code": 4, "wor')  # and a line that was cut short
    _, searched = go_on(toy, ONE)
    assert [one.state for one in searched.found[0].trials] == ["finished"] * 2 + ["impossible"] + ["finished"] * 3


def test_hopeless_trials_are_pruned(toy):
    search = dataclasses.replace(ONE, trials=10, pruner=Median(startup=2, warmup=0.0), steps=1.0)
    begun = time.monotonic()
    executed, searched = go_on(toy, search, "prune", workers=1)
    assert time.monotonic() - begun < 55, "nobody waited for the hopeless"
    [found] = searched.found
    pruned = [one for one in found.trials if one.state == "pruned"]
    assert searched.complete
    assert pruned
    assert found.count("finished") + len(pruned) == 10
    assert found.best.loss < 3.5
    one = pruned[0]
    assert one.loss == pytest.approx(3 + (math.log10(one.trial.point[RATE]) + 2) ** 2 + 1 / max(one.trial.reported))
    assert one.run.is_finished()
    assert one.run.folder.quarantined() is None
    assert one.run.folder.status()["message"] == "pruned at step 6 of 10"
    assert executed.failures == ()
    assert one.run.name in {run.name for run in executed.finished}
    again, _ = go_on(toy, search, "prune")
    assert again.finished == ()


def test_what_another_search_pruned_goes_on_in_this_one(toy):
    search = dataclasses.replace(ONE, trials=10, pruner=Median(startup=2, warmup=0.0), steps=1.0)
    pruned = [one.run for one in go_on(toy, search, "prune", workers=1)[1].found[0].trials if one.state == "pruned"]
    run = dataclasses.replace(pruned[0], study="another")
    assert not run.is_finished()
    subprocess.run(command()(run), check=True)
    assert run.is_finished()


def test_diverged_trials_are_told_as_infinite(toy):
    search = dataclasses.replace(ONE, trials=20)
    executed, searched = go_on(toy, search, "diverge")
    [found] = searched.found
    diverged = [one for one in found.trials if one.state == "diverged"]
    assert diverged
    assert all(one.trial.loss == math.inf and one.loss is None for one in diverged)
    assert all(one.trial.point[RATE] > 0.05 for one in diverged)
    assert found.best.trial.point[RATE] < 0.05
    assert executed.failures == ()
    assert go_on(toy, search)[0].finished == ()


def test_a_failed_trial_is_left_out_until_it_is_released(toy):
    search = dataclasses.replace(ONE, trials=8)
    executed, searched = go_on(toy, search, "fail")
    [found] = searched.found
    failed = [one for one in found.trials if one.state == "failed"]
    assert len(failed) == len(executed.failures) > 0
    assert searched.decided
    assert [one.run.name for one in engine.quarantined(searched.plan)] == [one.run.name for one in failed]
    failed[0].run.folder.release()
    assert not look(toy.plan(), search, ()).complete
    _, searched = go_on(toy, search)
    assert searched.found[0].trials[failed[0].trial.number].state == "finished"
    assert searched.found[0].count("failed") == len(failed) - 1


def test_without_any_loss_the_way_out_is_named(toy):
    search = Search({RATE: Float(0.1, 1.0)}, trials=2, variants=("rope",))
    _, searched = go_on(toy, search, "diverge")
    assert searched.complete
    assert not searched.decided
    assert searched.why_undecided().startswith("no trial of rope has a loss (2 diverged); change the space")


def test_points_without_a_model_are_told_as_failed(toy):
    search = Search({"model.num_heads": Int(1, 5), RATE: Float(0.001, 0.1)}, trials=8, variants=("rope",), pruner=None)
    _, searched = go_on(toy, search)
    by_heads = {one.trial.point["model.num_heads"]: one for one in searched.found[0].trials}
    assert {heads: one.state for heads, one in by_heads.items()} == {
        heads: "finished" if 16 % heads == 0 else "impossible" for heads in by_heads
    }
    assert searched.decided
    [one] = [one for one in by_heads.values() if one.state == "finished"][:1]
    assert one.run.folder.request()["parameters"] > 0


def test_after_a_cancellation_no_more_is_asked_for(toy):
    plan, trials, sizes = begin(toy, ONE)
    pool = Pool([Slot()], interval=0.02)

    def cancel():
        while not started(toy):
            time.sleep(0.02)
        [name] = started(toy)
        trials.runs[name].folder.cancel()

    thread = threading.Thread(target=cancel, daemon=True)
    thread.start()
    nothing = dataclasses.replace(plan, runs=())
    executed = engine.execute(nothing, pool, sizes, Console(quiet=True), command("wait"), source=trials)
    thread.join()
    assert len(executed.cancelled) == len(started(toy)) == 1
    _, searched = go_on(toy, ONE)
    assert searched.found[0].count("finished") == 6


def test_with_one_worker_a_search_repeats_exactly(toy):
    search = dataclasses.replace(ONE, trials=14)
    first = told(go_on(toy, search, workers=1)[1])
    for path in (toy.runs / "toy" / "search").iterdir():
        path.unlink()
    begun = started(toy)
    assert told(go_on(toy, search, workers=1)[1]) == first
    assert started(toy) == begun, "and finds its runs"


def test_text_that_changed_since_is_refused(toy):
    _, searched = go_on(toy, dataclasses.replace(ONE, trials=2))
    request = searched.plan.runs[0].folder.path / "request.json"
    request.write_text(json.dumps({**json.loads(request.read_text()), "dataset": "other"}))
    with pytest.raises(DataError, match=r"search-rope-.*the text has changed since this run"):
        go_on(toy, ONE)


def test_from_the_command_line(toy, monkeypatch, capsys):
    """What `plan`, `search`, `retry`, `report` and `clean` say and do, at every state of a search."""
    rule = ["fail"]
    monkeypatch.setattr(engine.execute, "__defaults__", (lambda run: command(rule[0])(run),))
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text() + SEARCH.replace("1e-3, 1e-1", "1e-2, 0.2").replace("3, (", "4, ("))
    options = ["--exp", "toy", "--scale", "small", "--runs-dir", str(toy.runs), "--workers", "1"]

    def main(*verb):
        code = cli.main([*verb, *options], toy.experiments, toy.configs)
        return code, *capsys.readouterr()

    code, out, _ = main("plan")
    assert code == 0
    assert "search: 4 trials of 4 steps for each of rope" in out
    assert "train.learning_rate: 0.01 to 0.2, by its logarithm" in out
    assert "rope: none yet" in out
    assert "estimate of the search: " in out
    assert "the settings of the comparison are chosen when the search (above) is complete" in out
    assert not (toy.runs / "toy").exists()
    code, _, err = main("report")
    assert (code, err) == (1, f"error: {toy.runs / 'toy'}: the search is not complete yet; go on with it: search\n")
    code, out, _ = main("search")
    assert code == 1, out
    assert "4 of 4 trials to do, 1 at a time" in out
    assert re.search(r"best settings\s.*rope.*2 failed", out, re.DOTALL)
    assert "about to fail" in out
    code, out, _ = main("status", "--once")
    assert "4 runs: 2 failed, 2 finished" in out
    rule[0] = "none"
    code, out, _ = main("retry")
    assert code == 0
    assert "is started once more" in out
    code, out, _ = main("search")
    assert code == 0
    assert "4 finished" in out
    code, out, _ = main("plan")
    assert "rope: 4 finished" in out
    assert "are chosen when" not in out
    code, out, _ = main("clean", "--yes")
    assert "nothing to remove" in out, "trials belong to the plan"
    code, out, _ = main("search", "--trials", "6")
    assert "2 of 6 trials to do" in out
    assert "6 finished" in out


def test_two_launchers_share_a_search(toy):
    """What the other executes is waited for, and told once."""
    _, elsewhere, _ = begin(toy, ONE)
    [run] = elsewhere.more(1)
    entered = threading.Event()

    def execute():
        with locked(run.folder.path):
            entered.set()
            while len(started(toy)) < 5:
                time.sleep(0.02)
            subprocess.run(command()(run), check=True)

    plan, trials, sizes = begin(toy, ONE)
    engine._ask(plan, run, sizes)
    thread = threading.Thread(target=execute, daemon=True)
    thread.start()
    entered.wait()
    nothing = dataclasses.replace(plan, runs=())
    engine.execute(nothing, Pool([Slot()] * 2, interval=0.02), sizes, Console(quiet=True), command(), source=trials)
    thread.join()
    elsewhere.ended(run)
    [found] = look(plan, ONE, ()).found
    assert found.count("finished") == 6
    assert set(started(toy).values()) == {1}


SEARCH = """

from jaxgpt.experiment.search import Float, Search


def search():
    return Search({"train.learning_rate": Float(1e-3, 1e-1, log=True)}, 3, ("rope",), steps=1.0)
"""


@pytest.fixture
def real(toy):
    """The toy with a search, on a copy of its files from a process of its own: `real(verb, ...)`."""
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text() + SEARCH)
    code = (
        "import sys; from pathlib import Path; from jaxgpt.experiment import cli; "
        f"sys.exit(cli.main(sys.argv[1:], Path({str(toy.experiments)!r}), Path({str(toy.configs)!r})))"
    )

    def start(*arguments):
        options = ["--exp", "toy", "--scale", "small", "--seeds", "1", "--runs-dir", str(toy.runs)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments, *options],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


@pytest.mark.parametrize(
    ("where", "searched"),
    [
        ("variant=rope", ["rope"]),
        ("variant=yarn", ["rope"]),  # whose weights it uses
        ("seed=0,state=pending", ["rope", "alibi"]),
        ("variant=alibi,train.learning_rate<1e-9", ["alibi"]),  # a setting that is to be chosen
    ],
)
def test_a_filter_restricts_a_search_to_the_variants_that_it_needs(toy, where, searched):
    experiment = dataclasses.replace(
        load_experiment("toy", toy.experiments), search=dataclasses.replace(ONE, variants=())
    )
    planned = functools.partial(
        make_plan, scale=load_scale("small", toy.configs), configs=toy.configs, runs_dir=toy.runs
    )
    work = make_work(experiment, planned, (), None, Wanted(True), parse_where(where))
    assert work.searched is not None
    assert [one.arm.name for one in work.searched.subjects] == searched


@pytest.fixture
def searching(toy, monkeypatch, capsys):
    """`call(verb, ...)` on the toy with a search of two trials, by the worker that only pretends: exit code, output."""
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text() + SEARCH.replace("1e-1, log=True), 3", "1e-1, log=True), 2"))
    scale = toy.configs / "scale" / "small.yaml"
    scale.write_text(scale.read_text() + "tune: false\n")

    def call(*arguments, rule="none"):
        monkeypatch.setattr(engine.execute, "__defaults__", (command(rule),))
        options = ["--exp", "toy", "--runs-dir", str(toy.runs)]
        code = cli.main([*arguments, *options], toy.experiments, toy.configs)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_what_a_search_started_last_is_retried(searching):
    code, said = searching("search", "--scale", "small", "--trials", "3", rule="always")
    assert (code, "no trial of rope has a loss (3 failed)" in said) == (1, True)
    code, said = searching("retry")
    assert said.count("is started once more") == 3
    assert code == 0
    assert "3 finished" in searching("status")[1]


def test_failed_trials_are_told_where_they_could_not_be_put_aside(searching, monkeypatch):
    def full(folder, message):
        raise UserError("No space left on device")

    monkeypatch.setattr("jaxgpt.experiment.store.RunFolder.quarantine", full)
    code, said = searching("search", "--scale", "small", rule="always")
    assert code == 1
    assert "failed: exit code 1" in said


def test_cancel_with_a_filter_means_its_trials_too(searching, monkeypatch):
    ready, cancelled = Pool.run, []

    def run(pool, tasks, on_event, look, more):
        def then(room):
            found = more(room)
            if found and not cancelled:
                cancelled.append(cli_cancel())
            return found

        return ready(pool, tasks, on_event, look, then)

    def cli_cancel():
        return searching("cancel", "--scale", "small", "--search", "--where", "variant=rope")[1]

    monkeypatch.setattr(Pool, "run", run)
    code, _ = searching("search", "--scale", "small", "--where", "variant=rope", "--workers", "1")
    assert (code, "1 are not started" in cancelled[0]) == (130, True)


def test_a_real_search_killed_and_gone_on_with_ends_in_a_comparison(toy, real):
    first = real("search", "--workers", "2")
    while not list((toy.runs / "toy").glob("search-*/config.yaml")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    second = real("--workers", "2")
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert err == ""
    assert "best settings" in out
    searched = [path for path in (toy.runs / "toy").glob("search-*") if path.is_dir()]
    assert len(searched) == 3
    lines = (toy.runs / "toy" / "report" / "search.csv").read_text().splitlines()
    assert lines[0] == "variant,trial,train.learning_rate,loss,state,run"
    assert len(lines) == 4
    report = (toy.runs / "toy" / "report" / "report.md").read_text()
    assert "## Settings found by search" in report
    assert "## Trials of the search" in report
    cells = [line.split(",") for line in lines[1:]]
    assert {one[4] for one in cells} == {"finished"}
    best = min(cells, key=lambda one: float(one[3]))
    used = {}
    for variant in ("rope", "alibi"):
        [run] = (toy.runs / "toy").glob(f"{variant}-seed0-*")
        used[variant] = json.loads((run / "request.json").read_text())["config"]["train"]["learning_rate"]
    assert used == {"rope": float(best[2]), "alibi": 2e-3}
    status = real("status", "--once")
    out, err = status.communicate()
    assert (status.returncode, err) == (0, "")
    assert out.count("search-") == 3
