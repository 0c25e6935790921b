"""The engine with a worker that only pretends: what is started, what is skipped, what is said of failures."""

import dataclasses
import json
import shutil
import sys
import threading
import time
import types

import pytest
from rich.console import Console

from jaxgpt.errors import DataError, UserError
from jaxgpt.experiment import engine
from jaxgpt.experiment.estimate import Size
from jaxgpt.files import write_json
from jaxgpt.launch.executor.base import Executor
from jaxgpt.launch.executor.local import Pool
from jaxgpt.launch.task import Event, Outcome, Slot
from jaxgpt.lease import locked

WORKER = """
import json, os, sys
folder, fault = sys.argv[1:]
request = json.load(open(folder + "/request.json"))
with open(folder + "/count", "a") as file: file.write("x")
if fault == "exit": print("about to fail"); sys.exit(1)
if fault == "kill": os.kill(os.getpid(), 9)
if fault == "told":
    json.dump({"state": "failed", "message": "the loss is nan"}, open(folder + "/status.json", "w")); sys.exit(1)
if fault == "overruled":
    request["evaluations"] = [{"hash": "another", "variant": "rope"}]
    json.dump(request, open(folder + "/request.json", "w"))
wanted = [] if fault == "lazy" else request["evaluations"]
measured = lambda one: {"hash": one["hash"], "variant": one["variant"], "measurements": [], "seconds": 0.1}
json.dump({one["hash"]: measured(one) for one in wanted}, open(folder + "/evaluation.json", "w"))
json.dump({"state": "finished", "step": 4, "steps": 4}, open(folder + "/status.json", "w"))
"""

SIZES = {name: Size(100, 6000, 128, "data") for name in ("rope", "alibi")} | {"yarn": Size(100, 6000, 0, "data")}


def execute(plan, faults=None, sizes=SIZES, **changes):
    def command(run):
        fault = (faults or {}).get((run.variant, run.seed), "none")
        return [sys.executable, "-S", "-c", WORKER, str(run.folder.path), fault]

    pool = Pool([Slot(), Slot()], interval=0.02, **changes)
    return engine.execute(plan, pool, sizes, Console(quiet=True), command)


def started(plan):
    """How often the worker of each run was started."""
    counts = {}
    for run in plan.runs:
        path = run.folder.path / "count"
        counts[run.variant, run.seed] = len(path.read_text()) if path.exists() else 0
    return counts


def test_a_finished_run_is_never_repeated(toy):
    plan = toy.plan()
    assert len(execute(plan).finished) == 5
    assert engine.pending(plan) == []
    again = execute(toy.plan(seeds=3))
    assert sorted((run.variant, run.seed) for run in again.finished) == [("alibi", 2), ("rope", 2)]
    assert set(started(toy.plan(seeds=3)).values()) == {1}


def test_workers_find_what_to_do_in_the_folder(toy):
    plan = toy.plan()
    execute(plan)
    run = plan.runs[1]
    request = run.folder.request()
    assert request["config"] == run.config
    assert [one["variant"] for one in request["evaluations"]] == ["rope", "yarn"]
    assert (request["kind"], request["seed"], request["threads"]) == ("model", 0, 1)
    assert (request["flops_per_token"], request["tokens"], request["dataset"]) == (6000, 128, "data")
    assert plan.runs[0].folder.request()["kind"] == "baseline"


def test_failures_are_kept_apart_and_named(toy):
    plan = toy.plan()
    executed = execute(plan, {("rope", 0): "exit", ("alibi", 0): "kill", ("rope", 1): "told", ("alibi", 1): "lazy"})
    assert [run.variant for run in executed.finished] == ["5-gram"]
    messages = {(one.run.variant, one.run.seed): one.message for one in executed.failures}
    assert messages == {
        ("rope", 0): "exit code 1",
        ("alibi", 0): "killed by SIGKILL (out of memory?)",
        ("rope", 1): "the loss is nan",
        ("alibi", 1): "ended without finishing its evaluations; the same command goes on with it",
    }
    assert [(run.variant, run.seed) for run in engine.pending(plan)] == [("alibi", 1)], "it did not fail"
    assert not executed.interrupted


def test_a_failure_that_could_not_be_written_down_has_a_reason_too(toy, monkeypatch):
    plan = toy.plan(seeds=1)
    words = "import sys; sys.exit('error: runs/x: cannot be written (No space left on device); free space')"

    def command(run):
        code = words if run.variant == "rope" else "raise SystemExit(1)"
        return [sys.executable, "-S", "-c", code]

    monkeypatch.setattr(shutil, "disk_usage", lambda place: types.SimpleNamespace(free=2**20))
    executed = engine.execute(plan, Pool([Slot()], interval=0.02), SIZES, Console(quiet=True), command)
    messages = [one.message for one in executed.failures]
    assert messages == [
        f"exit code 1 (1.0 MiB are left on the disk of {plan.directory})",
        "runs/x: cannot be written (No space left on device); free space",
        f"exit code 1 (1.0 MiB are left on the disk of {plan.directory})",
    ]


def test_failures_are_printed_with_their_log(toy, capsys):
    plan = toy.plan()
    executed = execute(plan, {("rope", 0): "exit", ("rope", 1): "exit"})
    engine.print_failures(executed.failures, Console(width=60))
    out = capsys.readouterr().out
    for run in (plan.runs[1], plan.runs[3]):
        assert f"{run.name} failed: exit code 1" in out
        assert f"log: {run.folder.log}" in out
    assert out.count("about to fail") == 1


def test_a_failed_run_is_in_quarantine_until_it_is_released(toy):
    plan = toy.plan()
    execute(plan, {("rope", 0): "told", ("alibi", 0): "exit"})
    failed = plan.runs[1]
    assert failed.folder.state() == "failed"
    assert failed.folder.quarantined().message == "the loss is nan"
    assert plan.runs[2].folder.quarantined().log == "about to fail"
    assert engine.pending(plan) == []
    assert [(one.run.name, one.message) for one in engine.quarantined(plan)] == [
        (failed.name, "the loss is nan"),
        (plan.runs[2].name, "exit code 1"),
    ]
    assert execute(plan).finished == ()
    assert started(plan)["rope", 0] == 1
    failed.folder.release()
    executed = execute(plan, {("rope", 0): "exit"})
    assert executed.failures[0].message == "exit code 1"
    failed.folder.release()
    assert len(execute(plan).finished) == 1
    assert started(plan)["rope", 0] == 3
    assert started(plan)["alibi", 0] == 1
    assert failed.folder.state() == "finished"


def test_what_was_ended_from_outside_is_tried_again(toy):
    plan = toy.plan()
    executed = execute(plan, {("rope", 0): "kill", ("alibi", 1): "exit"}, retries=2)
    assert started(plan)["rope", 0] == 3
    assert started(plan)["alibi", 1] == 1
    messages = {(one.run.variant, one.run.seed): one.message for one in executed.failures}
    assert messages == {("rope", 0): "killed by SIGKILL (out of memory?), 3 times", ("alibi", 1): "exit code 1"}


def test_a_cancelled_run_is_stopped_and_goes_on_the_next_time(toy):
    plan = toy.plan()
    slow, waiting = plan.runs[1], plan.runs[4]

    def command(run):
        code = "import time; time.sleep(60)" if run is slow else WORKER
        return [sys.executable, "-S", "-c", code, str(run.folder.path), "none"]

    def cancel():
        while not slow.folder.log.exists():
            time.sleep(0.02)
        slow.folder.cancel()
        waiting.folder.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    executed = engine.execute(plan, Pool([Slot()], interval=0.02), SIZES, Console(quiet=True), command)
    thread.join()
    assert {run.name for run in executed.cancelled} == {slow.name, waiting.name}
    assert executed.failures == ()
    assert len(executed.finished) == 3
    assert engine.pending(plan) == [slow, waiting]
    assert len(execute(plan).finished) == 2


def test_another_evaluation_visits_trained_runs_again(toy):
    execute(toy.plan())
    longer = toy.plan(["evaluate.protocols.fixed_target.multiples=[0.25,1,2]"])
    models = [run.variant for run in engine.pending(longer) if run.kind == "model"]
    assert models == ["rope", "alibi", "rope", "alibi"]
    assert all(run.folder.is_trained() for run in longer.runs if run.kind == "model")


def test_what_begins_with_failed_weights_is_not_run(toy, capsys):
    toy.add()
    sizes = SIZES | {"tuned": Size(100, 6000, 64, "data")}
    plan = toy.plan()
    executed = execute(plan, {("rope", 0): "exit"}, sizes)
    assert {(run.variant, run.seed) for run in executed.finished} == {
        ("5-gram", 0),
        ("alibi", 0),
        ("rope", 1),
        ("alibi", 1),
        ("tuned", 1),
    }
    messages = {(one.run.variant, one.run.seed): one.message for one in executed.failures}
    reason = f"not run, because {plan.runs[1].name} did not succeed"
    assert messages == {("rope", 0): "exit code 1", ("tuned", 0): reason}
    engine.print_failures(executed.failures, Console(width=60))
    out = capsys.readouterr().out
    assert f"{plan.runs[3].name} {reason}\n" in out
    assert out.count("log: ") == 1
    assert engine.pending(plan) == []
    plan.runs[1].folder.release()
    assert len(execute(plan, sizes=sizes).finished) == 2
    assert started(plan)["tuned", 1] == 1


def test_two_launchers_that_want_other_evaluations_both_get_theirs(toy, monkeypatch):
    plan = toy.plan(seeds=1)
    other = toy.plan(["evaluate.protocols.fixed_target.multiples=[0.25,1]"], seeds=1)
    assert plan.runs[1].folder.path == other.runs[1].folder.path
    ready = Pool.run
    monkeypatch.setattr(Pool, "run", lambda *given: engine._ask(other, other.runs[1], SIZES) or ready(*given))
    assert len(execute(plan).finished) == 3
    monkeypatch.undo()
    executed = execute(other, {("rope", 0): "overruled"})
    assert [one.message for one in executed.failures] == [
        "ended without finishing its evaluations; another launcher asked for others in the meantime; "
        "the same command goes on with it"
    ]
    assert len(execute(other).finished) == 1


def test_a_run_that_another_launcher_executes_is_waited_for(toy):
    plan = toy.plan()
    other = plan.runs[1].folder
    entered = threading.Event()

    def elsewhere():
        with locked(other.path):
            entered.set()
            time.sleep(0.5)
            done = {one.hash: {"hash": one.hash, "measurements": []} for one in plan.runs[1].evaluations}
            write_json(other.path / "evaluation.json", done)
            write_json(other.path / "status.json", {"state": "finished", "step": 4, "steps": 4})

    thread = threading.Thread(target=elsewhere)
    thread.start()
    entered.wait()
    executed = execute(plan)
    thread.join()
    assert len(executed.finished) == 5
    assert started(plan)["rope", 0] == 0


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_what_begins_with_weights_that_another_launcher_gave_up_is_not_run(toy, monkeypatch, how):
    toy.add()
    sizes = SIZES | {"tuned": Size(100, 6000, 64, "data")}
    plan = toy.plan()
    first = plan.runs[1].folder
    elsewhere = {"cancelled": first.cancel, "failed": lambda: first.quarantine("the loss is not a number")}[how]
    ready = Pool.run
    monkeypatch.setattr(Pool, "run", lambda *given: elsewhere() or ready(*given))
    executed = execute(plan, sizes=sizes)
    assert started(plan)["rope", 0] == started(plan)["tuned", 0] == 0
    messages = {(one.run.variant, one.run.seed): one.message for one in executed.failures}
    reason = f"not run, because {plan.runs[1].name} did not succeed"
    left = {("rope", 0): "the loss is not a number", ("tuned", 0): reason}
    assert messages == ({} if how == "cancelled" else left)
    both = [plan.runs[1].name, plan.runs[3].name]
    assert [run.name for run in executed.cancelled] == (both if how == "cancelled" else [])
    assert plan.runs[3].folder.quarantined() is None


SAVES = """
import signal, sys, time
folder = sys.argv[1]
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.0), open(folder + "/saved", "w"), sys.exit(130)))
open(folder + "/up", "w")
time.sleep(60)
"""


def meanwhile(happens):
    """Do something beside what follows."""
    thread = threading.Thread(target=happens, daemon=True)
    thread.start()
    return thread


def until(condition):
    while not condition():
        time.sleep(0.02)


def test_a_cancelled_run_that_another_launcher_goes_on_with_did_not_fail(toy):
    """The mark that cancelled it is gone when it has saved."""
    plan = toy.plan(seeds=1)
    run = plan.runs[1]

    def command(one):
        return [sys.executable, "-S", "-c", SAVES if one is run else WORKER, str(one.folder.path), "none"]

    def elsewhere():
        until((run.folder.path / "up").exists)
        run.folder.cancel()
        time.sleep(1.3)
        run.folder.go_on()

    thread = meanwhile(elsewhere)
    executed = engine.execute(
        plan, Pool([Slot(), Slot()], interval=0.02, retries=2), SIZES, Console(quiet=True), command
    )
    thread.join()
    assert [one.name for one in executed.cancelled] == [run.name]
    assert (executed.failures, run.folder.quarantined()) == ((), None)


def test_a_job_that_was_cancelled_by_hand_did_not_fail(toy):
    class ByHand(Executor):
        parallel = 1

        def run(self, tasks, on_event, look):
            outcomes = [Outcome(task, 130, message="its Slurm job was cancelled", cancelled=True) for task in tasks]
            for outcome in outcomes:
                on_event(Event("ended", outcome.task, outcome))
            return outcomes

    plan = toy.plan(seeds=1)
    executed = engine.execute(plan, ByHand(), SIZES, Console(quiet=True))
    assert (len(executed.cancelled), executed.failures) == (3, ())
    assert engine.pending(plan) == list(plan.runs)


def test_a_file_that_becomes_unreadable_hides_no_other_run(toy):
    plan = toy.plan(seeds=1)
    bad = plan.runs[1]
    breaks = "import sys; open(sys.argv[1] + '/status.json', 'w').write('{'); sys.exit(1)"

    def command(run):
        return [sys.executable, "-S", "-c", breaks if run is bad else WORKER, str(run.folder.path), "none"]

    executed = engine.execute(plan, Pool([Slot()], interval=0.02), SIZES, Console(quiet=True), command)
    assert [run.variant for run in executed.finished] == ["5-gram", "alibi"]
    [failure] = executed.failures
    assert "status.json" in failure.message


def test_an_error_of_the_launcher_lets_the_runs_save(toy):
    plan = toy.plan(seeds=1)
    run = plan.runs[1]

    class Full(engine.Source):
        total = 2

        def more(self, room):
            if not run.folder.path.exists():
                return [run]
            until((run.folder.path / "up").exists)
            raise UserError("search/journal.log: cannot be written")

        def hopeless(self, names):
            return ()

    def command(run):
        return [sys.executable, "-S", "-c", SAVES, str(run.folder.path)]

    nothing = dataclasses.replace(plan, runs=())
    with pytest.raises(UserError, match=r"journal\.log"):
        engine.execute(
            nothing, Pool([Slot(), Slot()], interval=0.02), SIZES, Console(quiet=True), command, source=Full()
        )
    assert (run.folder.path / "saved").exists()


def test_an_unwritable_place_is_one_message(toy):
    toy.runs.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"runs/toy/.*: cannot be written .*--runs-dir"):
        execute(toy.plan())
    toy.runs.unlink()
    plan = toy.plan()
    plan.directory.mkdir(parents=True)
    plan.runs[1].folder.path.write_text("a file where the run should be")
    with pytest.raises(UserError, match="cannot be written"):
        execute(plan)


def test_interruption_is_no_failure(toy, monkeypatch):
    plan = toy.plan()
    monkeypatch.setattr(Pool, "interrupted", property(lambda self: True))
    executed = execute(plan, {("rope", 0): "exit"})
    assert executed.interrupted
    assert executed.failures == ()


def test_data_is_prepared_and_measured_before_anything_runs(toy):
    plan = toy.plan()
    sizes = engine.prepare(plan)
    assert sizes["rope"].parameters == sizes["yarn"].parameters > 0
    assert (sizes["rope"].tokens, sizes["yarn"].tokens) == (128, 0)
    assert sizes["rope"].flops == 128 * sizes["rope"].flops_per_token
    with pytest.raises(DataError, match="fixed targets"):
        engine.prepare(toy.plan(["evaluate.protocols.fixed_target.multiples=[1,100000]"]))


def test_text_that_changed_since_a_run_is_refused(toy):
    plan = toy.plan()
    execute(plan, sizes=engine.prepare(plan))
    engine.prepare(plan)
    request = plan.runs[1].folder.request()
    (plan.runs[1].folder.path / "request.json").write_text(json.dumps({**request, "dataset": "other"}))
    with pytest.raises(DataError, match=r"rope-seed0-.*the text has changed since"):
        engine.prepare(plan)


def test_the_worker_is_started_with_this_python(toy):
    run = toy.plan().runs[1]
    assert engine.worker_command(run) == [sys.executable, "-m", "jaxgpt.experiment.worker", str(run.folder.path)]
