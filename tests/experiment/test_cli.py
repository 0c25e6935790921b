"""The command line, with workers that only pretend where runs are started."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxgpt.experiment import cli, engine
from jaxgpt.launch.executor.base import Job
from jaxgpt.launch.executor.local import LocalConfig, Pool
from jaxgpt.launch.executor.slurm import SlurmConfig

WORKER = """
import json, sys
folder = sys.argv[1]
request = json.load(open(folder + "/request.json"))
if request["variant"] in sys.argv[2].split(","): sys.exit("gave up")
measured = [
    {"metric": "fixed_target_nll", "context": c, "value": 2.0 + request["seed"] / 100, "unit": "nats/token"}
    for c in (4, 16, 64)
]
entries = {one["hash"]: {**one, "measurements": measured, "seconds": 0.1} for one in request["evaluations"]}
json.dump(entries, open(folder + "/evaluation.json", "w"))
json.dump({"state": "finished", "step": 4, "steps": 4}, open(folder + "/status.json", "w"))
"""


@pytest.fixture
def run(toy, monkeypatch, capsys):
    """run(*arguments) -> (exit code, output, errors); `run.failing` is a variant whose worker fails."""

    def command(one):
        return [sys.executable, "-S", "-c", WORKER, str(one.folder.path), call.failing]

    def call(*arguments):
        code = cli.main([*arguments, "--runs-dir", str(toy.runs)], toy.experiments, toy.configs)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    call.failing = "none"
    monkeypatch.setattr(engine.execute, "__defaults__", (command,))
    monkeypatch.setattr(cli, "Console", lambda **_: __import__("rich.console").console.Console(width=200))
    return call


SMALL = ("--exp", "toy", "--scale", "small")


def test_the_list(run):
    assert run("--list") == (0, "toy                      Does the toy work?\n", "")


def test_plan_shows_what_would_run(run, toy, monkeypatch):
    monkeypatch.setattr("jaxgpt.experiment.estimate.measure_peak", lambda threads: 1e11)
    code, out, _ = run("plan", *SMALL, "--workers", "2")
    assert code == 0
    assert "evaluated with the weights of rope" in out
    assert "5 runs (2 seeds, baseline included), 0 finished" in out
    assert "2 at a time, 1 thread each" in out
    assert "estimate: 16 s, from 30% of this machine's matrix-product peak" in out
    assert not toy.runs.exists()


def test_a_file_lies_over_the_scale_and_below_set(run, toy):
    file = toy.root / "more.yaml"
    file.write_text("train: {steps: 6, batch_size: 4}\n")
    code, output, _ = run("plan", *SMALL, "--config", str(file), "--set", "train.batch_size=3")
    assert code == 0
    assert f"{6 * 3 * 16}" in output, "tokens: steps of the file, batch of --set, sequences of the experiment"
    code, _, errors = run("plan", *SMALL, "--config", "nowhere.yaml")
    assert (code, errors.count("\n")) == (2, 1)
    assert "nowhere.yaml" in errors


def test_run_status_report_and_again(run, toy):
    code, out, err = run("run", *SMALL)
    assert (code, err) == (0, "")
    assert "5 of 5 runs to do" in out
    assert not (toy.runs / "toy" / "report").exists()
    code, out, _ = run("status", *SMALL)
    assert "5 runs: 5 finished" in out
    code, out, _ = run("report", *SMALL)
    assert code == 0
    results = (toy.runs / "toy" / "report" / "results.csv").read_bytes()
    assert results.count(b"\n") == 1 + (1 + 6) * 3
    assert "index.html" in out
    code, out, _ = run(*SMALL)
    assert code == 0
    assert "all 5 runs are finished" in out
    assert (toy.runs / "toy" / "report" / "results.csv").read_bytes() == results


def test_a_failing_run_is_reported_at_the_end(run, toy):
    run.failing = "alibi"
    code, out, err = run(*SMALL)
    assert (code, err) == (1, "")
    assert (toy.runs / "toy" / "report" / "index.html").exists()
    assert out.index("report: ") < out.index("failed: exit code 1")
    assert "gave up" in out
    assert out.count("log: ") == 2


def test_failures_are_told_even_when_there_is_nothing_to_report(run):
    run.failing = "alibi,rope"
    code, out, err = run(*SMALL)
    assert code == 1
    assert out.count("failed: exit code 1") == 4
    assert "no run of this plan is finished yet" in err


def test_what_failed_waits_for_retry(run, toy):
    run.failing = "alibi"
    assert run(*SMALL)[0] == 1
    run.failing = "none"
    code, out, _ = run(*SMALL)
    assert code == 1
    assert "2 failed earlier and left out; `retry` starts them once more" in out
    assert out.count("failed: exit code 1") == 2, "the reason is told again"
    code, out, _ = run("status", "--exp", "toy")
    assert "5 runs: 2 failed, 3 finished" in out
    code, out, _ = run("retry", "--exp", "toy")
    assert code == 0, "as it was started last"
    assert out.count("is started once more") == 2
    assert "2 of 2 runs to do" in out
    assert "5 runs: 5 finished" in run("status", "--exp", "toy")[1]
    assert "nothing has failed" in run("retry", *SMALL)[1]
    assert run("report", "--exp", "toy")[0] == 0, "of what was started last"


def test_what_failed_in_an_older_version_is_retried_too(run, toy):
    assert run("run", *SMALL)[0] == 0
    [folder] = toy.runs.glob("toy/alibi-seed0-*")
    (folder / "status.json").write_text('{"state": "failed", "message": "the loss is nan"}')
    assert "5 runs: 1 failed, 4 finished" in run("status", *SMALL)[1]
    code, out, _ = run("retry", *SMALL)
    assert (code, f"{folder.name} failed: the loss is nan; is started once more" in out) == (0, True)
    assert "5 runs: 5 finished" in run("status", *SMALL)[1]


def test_what_is_asked_about_and_retried_is_what_was_started_last(run, toy, monkeypatch):
    seen = []
    at_a_time = LocalConfig.make
    monkeypatch.setattr(LocalConfig, "make", lambda self, *given: seen.append(self) or at_a_time(self, *given))
    run.failing = "alibi"
    longer = (*SMALL, "--set", "train.steps=8", "executor.retries=5", "executor.workers=1")
    assert run(*longer)[0] == 1
    run.failing = "none"
    assert "2 runs: 1 failed, 1 finished" in run("status", "--exp", "toy", "--where", "variant=alibi,seed=0")[1]
    assert run("retry", "--exp", "toy", "--where", "seed=0,state=failed", "--set", "executor.minutes=9")[0] == 0
    assert (seen[-1].retries, seen[-1].workers, seen[-1].minutes) == (5, 1, 9)
    assert run("retry", "--exp", "toy", "--executor", "local")[0] == 0
    assert (seen[-1].retries, seen[-1].workers) == (LocalConfig().retries, None), "another, as it is by itself"


def test_a_state_selects_once(run):
    code, out, err = run(*SMALL, "--where", "seed=0,state=pending")
    assert (code, err) == (0, ""), "none is pending when it is reported"
    assert "3 of 3 runs to do" in out


def test_cancel_marks_what_is_not_finished(run, toy):
    code, out, _ = run("cancel", *SMALL)
    assert (code, "0 runs are told to stop where they are, 0 are not started" in out) == (0, True)
    assert run(*SMALL)[0] == 0
    longer = (*SMALL, "--set", "evaluate.protocols.fixed_target.multiples=[0.25,1]")
    assert "4 are not started" in run("cancel", *longer)[1], "the baseline of these is new"
    assert run(*longer)[0] == 0


def test_a_sweep_with_cancelled_runs_is_reported_and_says_so_by_its_exit_code(run, toy, monkeypatch):
    ready = Pool.run
    first, second = toy.plan(seeds=1).runs[1:]
    monkeypatch.setattr(Pool, "run", lambda *given: second.folder.cancel() or ready(*given))
    code, out, _ = run(*SMALL, "--seeds", "1")
    assert (code, "1 runs were cancelled; `run` goes on with them" in out) == (130, True)
    assert (first.is_finished(), second.is_finished()) == (True, False)
    assert "not finished" in (toy.runs / "toy" / "report" / "report.md").read_text()
    monkeypatch.undo()


def test_where_all_runs_were_cancelled_there_is_nothing_to_report(run, toy, monkeypatch):
    ready = Pool.run
    runs = toy.plan(seeds=1).runs
    monkeypatch.setattr(Pool, "run", lambda *given: [one.folder.cancel() for one in runs] and ready(*given))
    code, out, err = run(*SMALL, "--seeds", "1")
    assert (code, err, "3 runs were cancelled" in out) == (130, "", True)


def test_a_file_that_cannot_be_read_keeps_no_other_run_from_status_and_cancel(run, toy):
    run.failing = "alibi"
    assert run("run", *SMALL)[0] == 1
    [folder] = toy.runs.glob("toy/rope-seed0-*")
    (folder / "evaluation.json").write_text('{"a": ')
    [waiting] = toy.runs.glob("toy/alibi-seed1-*")
    (waiting / "failed.json").unlink()
    code, out, err = run("status", "--exp", "toy")
    assert (code, err) == (0, "")
    assert "5 runs: 2 failed, 1 pending, 2 finished" in out
    assert "1 are not started" in run("cancel", "--exp", "toy")[1]
    assert (waiting / "cancel").exists()


def test_clean_and_cancel_ask_every_scheduler(run, toy, monkeypatch):
    """What was started on Slurm before the last start is in its queue."""
    assert run("run", *SMALL, "--set", "train.steps=8", "--seeds", "1")[0] == 0
    queued = {path.parent.name for path in toy.runs.glob("toy/*/request.json")}
    run.failing = "rope"
    assert run("run", *SMALL, "--seeds", "1")[0] == 1
    [interrupted] = toy.runs.glob("toy/rope-seed0-*/failed.json")
    interrupted.unlink()
    names = {*queued, interrupted.parent.name}
    monkeypatch.setattr(SlurmConfig, "jobs", lambda directory: {name: Job("7", "PENDING") for name in names})
    told = []
    monkeypatch.setattr(SlurmConfig, "cancel", lambda directory, given: told.extend(given))
    assert "nothing to remove" in run("clean", *SMALL, "--seeds", "1", "--yes")[1]
    assert run("cancel", "--exp", "toy")[0] == 0
    assert told == [interrupted.parent.name]


def test_a_long_filter_has_a_short_folder(run, toy):
    where = "variant=" + "|".join(["rope", "alibi"] * 30)
    for _ in range(2):
        assert run(*SMALL, "--where", where)[0] == 0
    [folder] = (toy.runs / "toy").glob("report-variant=rope*")
    assert len(folder.name) < 120
    assert (folder / "index.html").exists()


def test_to_count_n_grams_no_learning_rate_is_tried(run, toy):
    code, out, _ = run("plan", *SMALL, "--tune", "--where", "kind=baseline")
    assert (code, "1 runs (1 seed, baseline included)" in out, "tuning-" in out) == (0, True, False)


def test_what_waits_for_weights_that_failed_is_retried_with_all_that_waits_for_it(run, toy):
    toy.add()
    toy.add(
        '        Variant("more", {"train": {"steps": 2}, "data": {"sequence_length": 32}}, parent="tuned"),\n    ]\n'
    )
    run.failing = "rope"
    assert run("run", *SMALL, "--seeds", "1")[0] == 1
    run.failing = "none"
    assert run("retry", "--exp", "toy")[0] == 0
    assert "5 runs: 5 finished" in run("status", "--exp", "toy")[1]


def test_cancel_and_clean_take_no_more_than_is_named(run, toy):
    toy.add()
    assert run("run", *SMALL)[0] == 0
    longer = (*SMALL, "--set", "evaluate.protocols.fixed_target.multiples=[0.25,1]")
    assert ", 2 are not started" in run("cancel", *longer, "--where", "variant=tuned")[1], "not what it begins with"
    code, out, _ = run("clean", *SMALL, "--where", "variant=yarn", "--yes")
    assert (code, "nothing to remove" in out) == (0, True), "weights it shares are another's"
    code, _, err = run("clean", *SMALL, "--where", "variant=alibo", "--yes")
    assert (code, "did you mean 'alibi'" in err) == (2, True)


def test_clean_asks_first(run, toy, monkeypatch):
    other = (*SMALL, "--set", "train.steps=8")
    assert run(*other)[0] == run(*SMALL)[0] == 0
    folders = len(list(toy.runs.glob("toy/*/request.json")))
    code, _, err = run("clean", *SMALL)
    assert code == 2
    assert "say --yes where nobody can be asked" in err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda *_: "")
    code, out, _ = run("clean", *SMALL)
    assert (code, "nothing was removed" in out) == (1, True)
    assert len(list(toy.runs.glob("toy/*/request.json"))) == folders
    code, out, _ = run("clean", *SMALL, "--yes")
    assert code == 0
    assert "5 runs: 5 finished" in run("status", "--exp", "toy")[1]
    assert len(list(toy.runs.glob("toy/*/request.json"))) == 5
    assert "nothing to remove" in run("clean", *SMALL)[1]
    assert "nothing to remove" in run("clean", *other)[1], "what was started last stays"


def test_where_selects_runs(run, toy):
    code, out, _ = run("run", *SMALL, "--where", "variant=alibi,seed<1")
    assert code == 0
    assert "2 of 2 runs to do" in out, "the baseline beside it, too"
    assert "5 runs: 3 pending, 2 finished" in run("status", "--exp", "toy")[1]
    assert "2 runs: 2 finished" in run("status", *SMALL, "--where", "variant=alibi,seed<1")[1]
    code, out, _ = run("report", *SMALL, "--where", "variant=alibi,seed<1")
    assert (code, "rope" in out) == (0, False)
    assert (toy.runs / "toy" / "report-variant=alibi_seed<1" / "results.csv").exists()
    assert not (toy.runs / "toy" / "report").exists()
    assert run(*SMALL, "--where", "variant=alibo")[0] == 2
    assert run("clean", *SMALL, "--where", "variant=alibi,seed=0", "--yes")[0] == 0
    assert "5 runs: 4 pending, 1 finished" in run("status", "--exp", "toy")[1]


def test_export(run, toy):
    assert run(*SMALL, "--export", "svg", "latex")[0] == 0
    assert {path.suffix for path in (toy.runs / "toy" / "report").iterdir()} >= {".csv", ".png", ".svg", ".tex"}
    code, out, err = run(*SMALL, "--seeds", "3", "--export", "swg")
    assert (code, out) == (2, ""), "before anything is run"
    assert "--export: no format is called 'swg'; did you mean 'svg'?" in err


def test_serve_says_what_is_wrong(run, toy):
    code, _, err = run("serve")
    assert code == 1
    assert str(toy.runs) in err
    assert err.count("\n") == 1


def test_options_of_executors(run):
    code, _, err = run(*SMALL, "--executor", "lokal")
    assert code == 2
    assert "--executor: none is called 'lokal'; did you mean 'local'?" in err
    code, _, err = run(*SMALL, "--set", "executor.retries=-1")
    assert (code, err) == (2, "error: executor.retries: expected 0 or more, got -1\n")
    code, out, _ = run("plan", *SMALL, "--set", "executor.workers=3")
    assert "3 at a time" in out


def test_interruption_has_its_own_exit_code(run, monkeypatch):
    monkeypatch.setattr(Pool, "interrupted", property(lambda self: True))
    code, _, err = run(*SMALL)
    assert code == 130
    assert err == "error: toy, scale small: interrupted; the same command goes on from what was saved\n"

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "prepare", stop)
    assert run(*SMALL)[0] == 130


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--scale", "small"], 2, "error: --exp NAME: which experiment? --list names them\n"),
        (["--exp", "toi"], 2, "error: --exp: no experiment is called 'toi'; did you mean 'toy'? (there are: toy)\n"),
        (["--exp", "toy", "--scale", "smal"], 2, "error: --scale: no scale is called 'smal'; did you mean 'small'?"),
        ([*SMALL, "--set", "train.stpes=3"], 2, "error: train.stpes: no such key; did you mean 'steps'?"),
        ([*SMALL, "--set", "plan"], 2, "error: --set 'plan': expected PATH=VALUE"),
        ([*SMALL, "--seeds", "0"], 2, "error: --seeds 0: expected 1 or more"),
        ([*SMALL, "--workers", "0"], 2, "error: --workers 0: expected a number of processes"),
        (["report", *SMALL], 1, "no run of this plan is finished yet"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(run, arguments, code, message):
    found, _, err = run(*arguments)
    assert found == code
    assert message in err
    assert err.count("\n") == 1


def test_a_runs_dir_that_cannot_be_written(run, toy):
    toy.runs.write_text("a file")
    code, _, err = run("run", *SMALL)
    assert code == 1
    assert err.startswith(f"error: {toy.runs}/toy: cannot be written (Not a directory); choose a place with --runs-dir")
    assert err.count("\n") == 1


def test_an_unknown_verb_is_refused_by_argparse(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("plann", *SMALL)
    assert stop.value.code == 2
    assert "invalid choice: 'plann'" in capsys.readouterr().err


def test_the_script_lists_and_helps_without_jax():
    script = Path(__file__).resolve().parents[2] / "experiments" / "run.py"
    code = f"import runpy, sys; sys.argv = ['run.py', '--help']; runpy.run_path({str(script)!r}, run_name='__main__')"
    check = f"try:\n    {code}\nexcept SystemExit as stop:\n    assert stop.code == 0\nassert 'jax' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "--exp NAME" in result.stdout
    assert "smoke" in result.stdout
