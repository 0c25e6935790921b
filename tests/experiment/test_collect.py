import json

import pytest
from rich.console import Console

from jaxgpt.errors import UserError
from jaxgpt.experiment import collect


def finish(plan, runs=None, value=1.0):
    """Fill run folders as workers would, with losses that depend on run and context."""
    for number, run in enumerate(plan.runs if runs is None else runs):
        done = {}
        for shift, wanted in enumerate(run.evaluations):
            measurements = [
                {
                    "metric": "fixed_target_nll",
                    "context": c,
                    "value": value + 0.01 * number + shift,
                    "unit": "nats/token",
                }
                for c in (4, 16, 64)
            ]
            done[wanted.hash] = {
                "hash": wanted.hash,
                "variant": wanted.variant,
                "measurements": measurements,
                "seconds": 2.5,
            }
        path = run.folder.path
        path.mkdir(parents=True, exist_ok=True)
        done["another"] = {"hash": "another", "variant": "rope", "measurements": [{"metric": "old"}]}
        (path / "evaluation.json").write_text(json.dumps(done))
        run.folder.update_status(state="finished", step=4, steps=4)
        evaluations = [{"variant": one.variant, "parameters": 123} for one in run.evaluations]
        (path / "request.json").write_text(json.dumps({"evaluations": evaluations}))
        if run.kind == "model":
            lines = [
                {"step": 2, "tokens": 64, "loss": 3.0, "tokens_per_second": 100},
                {"step": 4, "tokens": 128, "loss": 2.5, "tokens_per_second": 300},
                {"step": 4, "tokens": 128, "validation_loss": 2.75},
            ]
            (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
            environment = {"python": "3.11", "packages": {"jax": "1", "flax": "2"}, "devices": ["cpu:0", "cpu:1"]}
            environment["earlier"] = [{**environment, "packages": {"jax": "1", "flax": "1"}}]
            (path / "environment.json").write_text(json.dumps(environment))


def test_rows_are_those_of_this_plan(toy):
    plan = toy.plan()
    finish(toy.plan(seeds=3))
    rows = collect.rows(plan)
    assert len(rows) == (1 + 2 * 3) * 3
    assert {row.seed for row in rows} == {0, 1}
    assert {row.metric for row in rows} == {"fixed_target_nll"}
    assert {row.experiment for row in rows} == {"toy"}
    assert [row.value for row in rows if (row.variant, row.seed) == ("yarn", 0)] == [2.01] * 3


def test_several_baselines_stand_apart_in_the_report(toy):
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text().replace('{"model": {"position": "alibi"}}', '{"train": {"steps": 8}}'))
    plan = toy.plan()
    finish(plan)
    assert collect.results_of(plan).baselines == ("5-gram (rope)", "5-gram (alibi)")


def test_rows_wait_for_training_to_end(toy):
    plan = toy.plan()
    finish(plan)
    plan.runs[1].folder.update_status(state="running")
    assert {(row.variant, row.seed) for row in collect.rows(plan)} == {
        ("5-gram", 0), ("alibi", 0), ("rope", 1), ("yarn", 1), ("alibi", 1),
    }  # fmt: skip


def test_timings_and_curves(toy):
    plan = toy.plan()
    finish(plan)
    timings = {(one.variant, one.seed, one.metric): (one.value, one.unit) for one in collect.timings(plan)}
    assert timings["rope", 0, "training_speed"] == (200, "tokens/s")
    assert timings["rope", 0, "step_time"] == (160, "ms")
    assert timings["yarn", 1, "evaluation_time"] == (2.5, "s")
    curve = collect.curves(plan)[0]
    assert (curve.variant, curve.seed, curve.steps, curve.tokens, curve.loss) == (
        "rope",
        0,
        [2, 4],
        [64, 128],
        [3.0, 2.5],
    )
    assert curve.validation == [(4, 128, 2.75)]
    assert len(collect.curves(plan)) == 4


def test_the_report_has_everything(toy):
    plan = toy.plan()
    finish(plan, plan.runs[:4])
    report = collect.make_report(plan, "the command")
    assert report.title == "Does the toy work?"
    assert report.results.variants == ("rope", "alibi", "yarn")
    assert report.results.baselines == ("5-gram",)
    assert report.results.train_length == 16
    assert [one.claim for one in report.verdicts] == ["flat"]
    assert f"{plan.runs[4].name} is not finished: pending" in report.notes
    [changed] = [note for note in report.notes if "pending" not in note]
    assert changed.startswith("the runs differ in flax: 1, then 2 (")
    assert "earlier" not in report.facts
    rope, _, yarn = report.runs
    assert (rope["parameters"], rope["weights"], rope["tokens"], rope["steps"]) == (123, "trained", 128, 4)
    assert (yarn["weights"], yarn["tokens"]) == ("of rope", 0)
    assert report.facts["corpus"] == "text"
    assert report.facts["python"] == "3.11"
    assert report.facts["packages"] == "jax 1, flax 2"
    assert report.facts["devices"] == "cpu:0, cpu:1"
    assert report.facts["scale"] == "small"
    assert report.command == "the command"


def test_statistics_of_routers_stand_beside_the_runs(toy):
    """The last of each seed, their mean; nothing where a variant has no router."""
    plan = toy.plan()
    finish(plan)
    for number, run in enumerate(run for run in plan.runs if run.variant == "rope"):
        path = run.folder.path / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines[:2]:
            line["router_imbalance"] = 1.0 + line["step"] / 10 + number
        path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    rope, alibi, yarn = collect.make_report(plan, "").runs
    assert rope["router imbalance"] == pytest.approx((1.4 + 2.4) / 2)
    assert (alibi["router imbalance"], yarn["router imbalance"]) == (None, None)


def test_nothing_finished_is_an_error(toy):
    plan = toy.plan()
    with pytest.raises(UserError, match="no run of this plan is finished yet"):
        collect.make_report(plan, "")
    finish(plan, plan.runs[:1])
    with pytest.raises(UserError, match="no run of this plan is finished yet"):
        collect.make_report(plan, "")


def test_what_is_printed(toy, tmp_path, capsys):
    plan = toy.plan()
    finish(plan, plan.runs[:4])
    collect.print_report(collect.make_report(plan, ""), tmp_path / "index.html", Console(width=200))
    out = capsys.readouterr().out
    assert "16 = L" in out
    assert "2.77 [" in out  # rope, exp of the mean of two seeds, with its interval
    assert "not resolved" in out
    assert "too few seeds" in out
    assert "note: alibi-seed1-" in out
    assert f"report: {tmp_path / 'index.html'}" in out


def test_perplexities_for_people(trial):
    assert collect._number(1.0) == "2.72"
    assert collect._number(25.0) == "e^25.0"
    assert collect._cell(trial(seeds=1), "rope", 128).count("[") == 0
    assert collect._cell(trial(), "rope", 128).count("[") == 1
    assert collect._cell(trial(), "rope", 999) == "-"


def test_losses_by_document_are_collected_and_shown(toy):
    plan = toy.plan(seeds=3)
    finish(plan)
    for run in plan.runs:
        path = run.folder.path / "evaluation.json"
        done = json.loads(path.read_text())
        for wanted in run.evaluations:
            for one in done[wanted.hash]["measurements"]:
                one["documents"] = [[document, one["value"] * 10, 10] for document in range(6)]
        path.write_text(json.dumps(done))
    assert len(collect.document_losses(plan)) == 3 * 3 * 3 * 6, "arms, seeds, contexts, documents; no baseline"
    (noise,) = collect.make_report(plan, "").noise
    assert (noise.text, noise.documents) == ("R_alibi(4L)", 6)
    assert noise.low == pytest.approx(noise.high), "every document says the same"
