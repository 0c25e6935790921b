"""Learning rates chosen by trials; what the trials measured is made up."""

import json
import math

import pytest

from jaxgpt.config import encode
from jaxgpt.data.sources.text import TextDataConfig
from jaxgpt.errors import ConfigError
from jaxgpt.experiment import cli, engine, tuning
from jaxgpt.experiment.engine import Executed
from jaxgpt.experiment.spec import Tuning

RATE = 2e-3  # that of a run where nothing is said


def finish(run, loss=3.0):
    """Leave what a worker would leave of a run; a loss of None diverged."""
    run.folder.path.mkdir(parents=True, exist_ok=True)
    if loss is None:
        run.folder.update_status(state="failed", message="the loss is nan", diverged=True)
        return
    [metric, contexts] = (
        ["non_overlapping", [16]] if run.variant.startswith("tuning-") else ["fixed_target", [4, 16, 64]]
    )
    one = {"metric": f"{metric}_nll", "unit": "nats/token"}
    found = [{**one, "context": context, "value": loss + (context - 16) / 100} for context in contexts]
    measured = {one.hash: {"measurements": found, "seconds": 1.0} for one in run.evaluations}
    (run.folder.path / "evaluation.json").write_text(json.dumps(measured))
    lines = [{"step": step, "tokens": 16 * step, "loss": 4.0 - step, "tokens_per_second": 16} for step in (1, 2)]
    (run.folder.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.folder.update_status(state="finished")


def losses(grid, by_trial):
    for run in grid.runs:
        finish(run, by_trial[run.variant])


LOSSES = {
    "tuning-rope-0.5x": 3.2,
    "tuning-rope-1x": 3.1,
    "tuning-rope-2x": 3.05,
    "tuning-alibi-0.5x": 3.3,
    "tuning-alibi-1x": 3.2,
    "tuning-alibi-2x": None,
}


def test_every_variant_is_tried_at_every_rate(toy):
    toy.add()
    plan = toy.plan()
    grid = tuning.grid_plan(plan, Tuning(steps=0.5, seeds=2, fraction=0.2))
    assert {run.variant for run in grid.runs} == set(LOSSES), "not those that use another's weights, and no baseline"
    assert [run.seed for run in grid.runs] == [1000] * 6 + [1001] * 6
    config = grid.runs[2].config
    assert (config["train"]["learning_rate"], config["train"]["steps"]) == (2 * RATE, 2)
    assert config["data"] == {**plan.runs[1].config["data"], "tuning_fraction": 0.2}
    [evaluation] = grid.runs[2].evaluations
    assert (list(evaluation.config["protocols"]), evaluation.length) == (["non_overlapping"], 16)
    assert evaluation.config["protocols"]["non_overlapping"]["multiples"] == [1.0]
    assert grid.directory == plan.directory
    assert {run.folder.path.name[:7] for run in grid.runs} == {"tuning-"}


def test_nothing_is_chosen_before_every_trial_is_finished(toy):
    plan = toy.plan()
    grid = tuning.grid_plan(plan, Tuning())
    assert tuning.choose(plan, grid, Tuning()) == []
    losses(grid, LOSSES)
    assert len(tuning.choose(plan, grid, Tuning())) == 2
    grid.runs[0].folder.update_status(state="interrupted")
    assert tuning.choose(plan, grid, Tuning()) == []


def test_the_lowest_loss_is_chosen_and_its_place_in_the_grid_told(toy):
    toy.add()
    plan = toy.plan()
    grid = tuning.grid_plan(plan, Tuning())
    losses(grid, LOSSES)
    rope, alibi = tuning.choose(plan, grid, Tuning())
    assert (rope.variant, rope.rate, rope.at_edge) == ("rope", 2 * RATE, True)
    assert (alibi.variant, alibi.rate, alibi.at_edge) == ("alibi", RATE, False)
    assert alibi.losses == {0.5: 3.3, 1.0: 3.2, 2.0: math.inf}
    assert (rope.tokens, rope.seconds) == (96, 6.0)
    assert tuning.rows([alibi]) == [
        {
            "variant": "alibi",
            "loss at 0.5x": "3.3000",
            "loss at 1x": "3.2000",
            "loss at 2x": "diverged",
            "chosen": RATE,
            "tokens": 64,
            "seconds": 4,
        }
    ]
    [warning] = tuning.warnings([rope, alibi])
    assert warning.startswith("rope: its best learning rate, 0.004, is at an edge of the grid")


def test_the_comparison_uses_what_was_chosen(toy):
    toy.add()
    plan = toy.plan()
    grid = tuning.grid_plan(plan, Tuning())
    losses(grid, LOSSES)
    changed = tuning.with_rates(plan, tuning.choose(plan, grid, Tuning()))
    rates = {run.variant: run.config["train"]["learning_rate"] for run in changed.runs if run.kind == "model"}
    assert rates == {"rope": 2 * RATE, "alibi": RATE, "tuned": 2 * RATE}
    assert [arm.name for arm in changed.arms] == [arm.name for arm in plan.arms]
    by_name = {arm.name: arm for arm in changed.arms}
    assert by_name["yarn"].training == by_name["rope"].training
    before, after = ({run.variant: run for run in one.runs if run.seed == 0} for one in (plan, changed))
    assert after["alibi"].name == before["alibi"].name
    assert after["rope"].name != before["rope"].name
    assert after["tuned"].config["start"]["hash"] == after["rope"].hash
    assert after["5-gram"].name == before["5-gram"].name


def test_of_equal_losses_the_rate_nearest_to_the_given_one():
    choice = tuning.Choice("a", 1.0, {0.25: 3.0, 1.0: 3.0, 2.0: 3.0}, 0, 0.0)
    assert choice.factor == 1.0


def test_from_the_command_line(toy, monkeypatch, capsys):
    """Trials first, then the comparison; and what is finished is not repeated."""
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text() + "\n\ndef tuning():\n    return Tuning(factors=(1.0, 2.0))\n")
    file.write_text(file.read_text().replace("import Variant,", "import Tuning, Variant,"))
    done = []

    def execute(plan, slots, sizes, console):
        runs = engine.pending(plan)
        for run in runs:
            engine._ask(plan, run, sizes)
            finish(run, 3.0 - 0.1 * run.config.get("train", {}).get("learning_rate", 0))
            done.append(run.variant)
        return Executed(tuple(runs), (), (), False)

    monkeypatch.setattr(engine, "execute", execute)
    monkeypatch.setattr("jaxgpt.experiment.report.write.figures", lambda report: {})  # of two points there is no curve
    arguments = ["--exp", "toy", "--scale", "small", "--runs-dir", str(toy.runs), "--seeds", "1"]

    def main(*more):
        return cli.main([*more, *arguments], toy.experiments, toy.configs)

    assert main("plan") == 0
    printed = capsys.readouterr().out
    assert "tuning-alibi-2x" in printed
    assert "the learning rates of the comparison are chosen when its trials (above) are finished" in printed
    assert main("report") == 1
    assert "its learning rates are not chosen yet; start the trials with the verb run" in capsys.readouterr().err
    assert main() == 0
    assert done[:4] == ["tuning-rope-1x", "tuning-rope-2x", "tuning-alibi-1x", "tuning-alibi-2x"]
    assert sorted(done[4:]) == ["5-gram", "alibi", "rope"]
    report = (toy.runs / "toy" / "report" / "report.md").read_text()
    assert "## Learning rates" in report
    assert "rope: its best learning rate, 0.004, is at an edge of the grid" in report
    assert "FLOPs per token" in report
    assert "tuning-" not in (toy.runs / "toy" / "report" / "results.csv").read_text()
    assert main() == 0
    assert len(done) == 7
    capsys.readouterr()
    assert main("status", "--where", "variant=rope,state=finished,train.learning_rate>0.003") == 0
    shown = capsys.readouterr().out
    assert ("rope-seed0" in shown, "alibi" in shown) == (True, False), "of the rates chosen"
    assert main("status") == 0
    assert "tuning-rope-2x-seed1000" in capsys.readouterr().out
    assert main("run", "--no-tune") == 0
    assert sorted(done[7:]) == ["alibi", "rope"]


def test_without_its_trials_there_is_no_comparison(toy, monkeypatch, capsys):
    executed = []

    def cancelled(plan, *_):
        executed.append({run.variant.split("-")[0] for run in plan.runs})
        return Executed((), (), plan.runs, False)

    monkeypatch.setattr(engine, "execute", cancelled)
    arguments = ["--exp", "toy", "--scale", "small", "--runs-dir", str(toy.runs), "--tune"]
    assert cli.main(arguments, toy.experiments, toy.configs) == 130
    assert executed == [{"tuning"}]
    assert "runs were cancelled; `run` goes on with them" in capsys.readouterr().out


def test_a_scale_may_leave_it_out(toy, capsys):
    """Then only --tune asks for it."""
    file = toy.experiments / "toy.py"
    tuning = "\n\nfrom jaxgpt.experiment.spec import Tuning\n\n\ndef tuning():\n    return Tuning(factors=(1, 2))\n"
    file.write_text(file.read_text() + tuning)
    scale = toy.configs / "scale" / "small.yaml"
    shown = {}
    for text in (scale.read_text(), scale.read_text() + "tune: false\n"):
        scale.write_text(text)
        for option in ([], ["--tune"], ["--no-tune"]):
            arguments = ["status", "--exp", "toy", "--scale", "small", "--runs-dir", str(toy.runs), *option]
            assert cli.main(arguments, toy.experiments, toy.configs) == 0
            shown["tune: false" in text, *option] = "tuning-rope-2x" in capsys.readouterr().out
    assert shown == {
        (False,): True,
        (False, "--tune"): True,
        (False, "--no-tune"): False,
        (True,): False,
        (True, "--tune"): True,
        (True, "--no-tune"): False,
    }


@pytest.mark.parametrize(
    "wrong", [{"factors": (1.0,)}, {"factors": (1.0, 1.0)}, {"factors": (0.0, 1.0)}, {"steps": 2.0}]
)
def test_grids_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match="tuning: "):
        Tuning(**wrong)


def test_the_split_is_no_part_of_the_data_until_asked():
    assert encode(TextDataConfig().for_tuning(0.2)) == {**encode(TextDataConfig()), "tuning_fraction": 0.2}
