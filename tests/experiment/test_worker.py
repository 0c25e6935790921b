"""One run in one process, for real but tiny; then what it repeats and what it does not."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from jaxgpt.errors import CheckpointError, Interrupted, UserError
from jaxgpt.experiment import engine, worker
from jaxgpt.launch.machine import thread_environment
from jaxgpt.lease import Locked, locked
from jaxgpt.train import loop
from jaxgpt.train.start import load_model


@pytest.fixture
def asked(toy, monkeypatch):
    """A plan of one seed whose requests are written; this process has the thread environment of a worker."""
    for name, value in thread_environment(1).items():
        monkeypatch.setenv(name, value)

    def ask(*overrides):
        plan = toy.plan(overrides, seeds=1)
        sizes = engine.prepare(plan)
        for run in plan.runs:
            engine._ask(plan, run, sizes)
        return plan

    return ask


def test_trains_evaluates_and_repeats_nothing(asked, monkeypatch):
    baseline, rope, _ = asked().runs
    worker.execute(rope.folder.path)
    assert rope.is_finished()
    assert rope.folder.status() == {"state": "finished", "step": 4, "steps": 4, "message": None}
    done = rope.folder.evaluations()
    own, yarn = (done[one.hash] for one in rope.evaluations)
    assert (own["variant"], yarn["variant"]) == ("rope", "yarn")
    assert [(one["metric"], one["context"]) for one in own["measurements"]] == [
        (f"fixed_target_{name}", context) for context in (4, 16, 64) for name in ("nll", "bits_per_byte")
    ]
    # The same weights under another position encoding: close within the training length, but not the same.
    values = [[one["value"] for one in entry["measurements"]] for entry in (own, yarn)]
    assert values[0] != values[1]
    assert values[0][0] == pytest.approx(values[1][0], rel=0.2)

    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("trained again"))
    before = (rope.folder.path / "evaluation.json").read_bytes()
    worker.execute(rope.folder.path)
    assert (rope.folder.path / "evaluation.json").read_bytes() == before
    assert len(rope.folder.attempts()) == 1, "with nothing to do, nothing was begun"

    more = asked("evaluate.protocols.fixed_target.multiples=[0.25,1]").runs[1]
    assert more.folder.path == rope.folder.path
    assert not more.is_finished()
    worker.execute(more.folder.path)
    assert more.is_finished()
    assert rope.is_finished()

    worker.execute(baseline.folder.path)
    [counted] = baseline.folder.evaluations().values()
    assert counted["variant"] == "5-gram"
    assert counted["measurements"][0]["value"] > 0


def test_weights_are_trained_on_and_measured_at_the_same_contexts(toy, asked):
    toy.add()
    _, rope, _, tuned = asked().runs
    with pytest.raises(CheckpointError, match=r"is no run folder|is at step 0 of 4; train it to its end first"):
        worker.execute(tuned.folder.path)
    worker.execute(rope.folder.path)
    tuned.folder.release()
    worker.execute(tuned.folder.path)
    assert tuned.is_finished()
    assert tuned.folder.status()["step"] == 2
    assert json.loads((tuned.folder.path / "surgery.json").read_text())["run"] == rope.hash
    [own] = tuned.folder.evaluations().values()
    assert [one["context"] for one in own["measurements"]] == [4, 4, 16, 16, 64, 64]
    model, _ = load_model(tuned.folder.path)
    assert model.config.train_length == 16, "encodings mean what they meant"


def test_a_failure_leaves_its_message(asked, monkeypatch, capsys):
    _, rope, alibi = asked().runs
    errors = iter([UserError("the loss is nan"), RuntimeError("a fault\nin two lines")])

    def fail(*_):
        raise next(errors)

    monkeypatch.setattr(loop, "train", fail)
    assert worker.main([str(rope.folder.path)]) == 1
    assert capsys.readouterr().err == "error: the loss is nan\n"
    assert rope.folder.status() == {"state": "failed", "message": "the loss is nan"}
    assert worker.main([str(alibi.folder.path)]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert alibi.folder.status()["message"] == "RuntimeError: a fault"


@pytest.mark.parametrize("kind", [UserError, OSError])
def test_a_full_disk_is_told_by_the_exit_code(monkeypatch, capsys, kind):
    def full(path):
        if kind is OSError:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise UserError("runs/x: cannot be written (No space left on device); free space")

    def unwritable(*words, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(worker, "execute", full)
    assert worker.main(["runs/x"]) == errno.ENOSPC
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.setattr("builtins.print", unwritable)
    monkeypatch.setattr(worker.traceback, "print_exc", unwritable)
    assert worker.main(["runs/x"]) == errno.ENOSPC


def test_interruption_keeps_the_status_that_training_left(asked, monkeypatch, capsys):
    rope = asked().runs[1]

    def stop(*_):
        rope.folder.update_status(state="interrupted", step=2)
        raise Interrupted("saved at step 2")

    monkeypatch.setattr(loop, "train", stop)
    assert worker.main([str(rope.folder.path)]) == 130
    assert rope.folder.status() == {"state": "interrupted", "step": 2}
    monkeypatch.setattr(loop, "train", lambda *_: os.kill(os.getpid(), 2))
    assert worker.main([str(rope.folder.path)]) == 130
    capsys.readouterr()


def test_a_job_that_gets_no_further_is_put_aside(asked, monkeypatch):
    """Each start saves in time, but a cluster stops it before its first step."""
    rope = asked().runs[1]

    def stop(*_):
        rope.folder.update_status(state="interrupted", step=2)
        raise Interrupted("saved at step 2")

    monkeypatch.setattr(loop, "train", stop)

    def start(job):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        with pytest.raises(UserError) as raised:
            worker.execute(rope.folder.path)
        return str(raised.value)

    assert {start(job) for job in [*6 * [""], *4 * ["7"], *4 * ["8"]]} == {"saved at step 2"}
    assert start("8") == "came no further in 5 starts: saved at step 2; give it more time (executor.minutes)"
    assert (rope.folder.state(), rope.folder.attempts()[-1].state) == ("failed", "interrupted")


def test_a_second_writer_is_kept_out(asked):
    rope = asked().runs[1]
    with locked(rope.folder.path), pytest.raises(Locked, match=f"process {os.getpid()}"):
        worker.execute(rope.folder.path, patience=0.2)
    assert not rope.folder.status()


def test_an_evaluation_that_fails_leaves_the_results_there_are(asked, monkeypatch):
    rope = asked().runs[1]
    worker.execute(rope.folder.path)
    more = asked("evaluate.protocols.fixed_target.multiples=[0.25,1]").runs[1]

    def fail(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr("jaxgpt.evaluate.measure.evaluate", fail)
    with pytest.raises(RuntimeError):
        worker.execute(more.folder.path)
    assert (more.state(), rope.state()) == ("failed", "finished")
    assert more.folder.quarantined().message == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"


def test_a_run_that_is_told_to_stop_while_it_evaluates_goes_on_there(asked, monkeypatch, capsys):
    rope = asked().runs[1]
    worker.execute(rope.folder.path)
    more = asked("evaluate.protocols.fixed_target.multiples=[0.25,1]").runs[1]
    monkeypatch.setattr("jaxgpt.evaluate.measure.evaluate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert worker.main([str(more.folder.path)]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.endswith("stopped; run again to go on\n")
    assert (more.state(), more.folder.attempts()[-1].state) == ("trained", "interrupted")


def test_what_has_failed_under_another_launcher_is_not_tried_again(asked, monkeypatch):
    rope = asked().runs[1]
    rope.folder.quarantine("the loss is nan")
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("tried again"))
    with pytest.raises(UserError, match=r"has failed \(the loss is nan\); `experiments/run\.py retry`"):
        worker.execute(rope.folder.path)
    assert rope.folder.attempts() == []


def test_a_folder_without_a_request(tmp_path):
    with pytest.raises(UserError, match=r"no request\.json; start runs with experiments/run\.py"):
        worker.execute(tmp_path)


def test_as_a_command(asked):
    """What the pool starts: the baseline needs no JAX, so this takes a second."""
    baseline = asked().runs[0]
    command = [sys.executable, "-m", "jaxgpt.experiment.worker", str(baseline.folder.path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "evaluating 5-gram\n"
    assert baseline.is_finished()
    assert len(json.loads((baseline.folder.path / "evaluation.json").read_text())) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_train_a_run_and_the_first_evaluates_it(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    measured = []
    for runs, together in (("alone", False), ("shared", True)):
        toy_runs = tmp_path / runs
        monkeypatch.setattr(type(toy), "runs", property(lambda self, place=toy_runs: place))
        plan = toy.plan(["train.mesh={data: 2}"] if together else [], seeds=1)
        sizes = engine.prepare(plan)
        for run in plan.runs[:2]:  # the baseline, and one that is trained
            engine._ask(plan, run, sizes)
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{free.getsockname()[1]}"
            command = [sys.executable, "-m", "jaxgpt.experiment.worker", str(run.folder.path)]
            processes = [
                subprocess.Popen(
                    [*command, "--processes"] if together else command,
                    env={
                        **os.environ,
                        "JAX_COORDINATOR_ADDRESS": address,
                        "JAX_NUM_PROCESSES": "2",
                        "JAX_PROCESS_ID": str(number),
                    },
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                for number in range(2 if together else 1)
            ]
            said = [process.communicate(timeout=200)[0] for process in processes]
            assert [process.returncode for process in processes] == [0] * len(processes), said
            assert run.is_finished()
        trained = plan.runs[1]
        assert [one.state for one in trained.folder.attempts()] == ["trained", "finished"] if together else ["finished"]
        done = trained.folder.evaluations()[trained.evaluations[0].hash]["measurements"]
        measured.append([one["value"] for one in done])
    assert measured[0] == pytest.approx(measured[1], abs=1e-6)
