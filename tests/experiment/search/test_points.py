"""What a search is about, before anything is tried: points as runs, wrong spaces, points in a comparison."""

import dataclasses

import pytest

from jaxgpt.config import decode, parse_overrides
from jaxgpt.data.dataset import DataConfig
from jaxgpt.errors import ConfigError
from jaxgpt.experiment import cli
from jaxgpt.experiment.plan import make_plan
from jaxgpt.experiment.search import Choice, Float, Int, Median, Search
from jaxgpt.experiment.search.points import Wanted, largest_plan, subjects, typical_plan, with_points
from jaxgpt.experiment.spec import load_experiment, load_scale

RATE = "train.learning_rate"
SEARCH = Search({RATE: Float(1e-4, 1e-2, log=True)})

FUNCTION = """

from jaxgpt.experiment.search import Float, Search


def search():
    return Search({"train.learning_rate": Float(1e-4, 1e-2, log=True)}, trials=3)
"""


def add_search(toy, text=FUNCTION):
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text() + text)


def test_variants_trained_from_the_start_are_searched(toy):
    toy.add()
    plan = toy.plan()
    both = subjects(plan, SEARCH, ())
    assert [one.arm.name for one in both] == ["rope", "alibi"], "not those that use another's weights"
    assert both[0].study.startswith("rope-")
    [one] = subjects(plan, dataclasses.replace(SEARCH, variants=("alibi",), trials=5), ())
    assert one.study == both[1].study
    with pytest.raises(ConfigError, match=r"variants: 'tuned' is not trained from the start"):
        subjects(plan, dataclasses.replace(SEARCH, variants=("tuned",)), ())


def test_a_point_is_a_run_of_its_own(toy):
    [one] = subjects(toy.plan(), dataclasses.replace(SEARCH, variants=("rope",), steps=0.5), ())
    run = one.run({RATE: 0.003})
    assert run.name == run.variant == f"search-rope-{run.hash}"
    assert run.name == one.run({RATE: 0.003}).name != one.run({RATE: 0.004}).name
    assert run.config["train"]["learning_rate"] == 0.003
    assert (run.config["train"]["steps"], run.seed, run.may_diverge) == (2, 1000, True)
    assert run.config["data"]["tuning_fraction"] == 0.1
    assert run.arm.variant.description == "train.learning_rate 0.003"
    [evaluation] = run.evaluations
    assert (list(evaluation.config["protocols"]), evaluation.length) == (["non_overlapping"], 16)


def test_kinds_are_set_before_what_lies_below_them(toy):
    space = {"model.position.theta": Float(100, 1e4), "model.position.type": Choice(("rope", "xpos"))}
    [one] = subjects(toy.plan(), Search(space, variants=("rope",)), ())
    position = one.run({"model.position.theta": 500.0, "model.position.type": "xpos"}).config["model"]["position"]
    assert (position["type"], position["theta"]) == ("xpos", 500.0)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.lerning_rate": Float(1e-4, 1e-2)}, r"train.lerning_rate: no such key; did you mean 'learning_rate'"),
        ({RATE: Float(-1.0, 1.0)}, r"train.learning_rate: .*must be positive"),
        ({RATE: Choice(("fast", "slow"))}, r"train.learning_rate: .*expected a number"),
        ({"model.num_layers": Float(1.0, 2.0)}, r"model.num_layers: .*expected a whole number"),
        ({"train.log_every": Int(1, 5)}, r"train.log_every: changes nothing that a run's result depends on"),
        ({"model.num_heads": Choice((3, 5))}, r"model.num_heads: "),
    ],
)
def test_wrong_spaces_are_refused_before_anything_runs(toy, space, message):
    with pytest.raises(ConfigError, match=rf"experiment toy: search\(\), variant 'rope': {message}"):
        subjects(toy.plan(), Search(space), ())


def test_what_is_decided_already_is_not_searched(toy):
    for setting in ("train.learning_rate=0.1", "train={learning_rate: 0.1}"):
        with pytest.raises(ConfigError, match=r"train\.learning_rate: is what the search chooses; .*--no-search"):
            subjects(toy.plan(), SEARCH, parse_overrides([setting]))
    below = Search({"model.position.theta": Float(100, 1e4)}, variants=("rope",))
    with pytest.raises(ConfigError, match=r"model\.position\.theta: is what the search chooses"):
        subjects(toy.plan(), below, parse_overrides(["model.position=rope"]))
    assert subjects(toy.plan(), SEARCH, parse_overrides(["train.batch_size=4"]))
    plan = toy.plan()
    matched = dataclasses.replace(plan, experiment=dataclasses.replace(plan.experiment, match="parameters"))
    with pytest.raises(ConfigError, match=r"model\.num_layers: match\(\) decides the size of models"):
        subjects(matched, Search({"model.num_layers": Int(1, 2)}), ())


def test_data_without_a_tuning_split_are_refused(toy):
    plan = toy.plan()
    data = decode(DataConfig, {"type": "task", "task": "copy"}, "data")
    arms = [dataclasses.replace(arm, training=dataclasses.replace(arm.training, data=data)) for arm in plan.arms]
    with pytest.raises(ConfigError, match=r"task has no tuning split; .*--no-search"):
        subjects(dataclasses.replace(plan, arms=tuple(arms)), SEARCH, ())


def test_a_study_is_about_one_configuration(toy):
    [before, _], [after, _] = (subjects(toy.plan(pairs), SEARCH, ()) for pairs in ([], ["train.batch_size=4"]))
    assert before.study != after.study
    [seldom, _] = subjects(toy.plan(["train.validate_every=1"]), dataclasses.replace(SEARCH, pruner=None), ())
    [often, _] = subjects(toy.plan(["train.validate_every=2"]), dataclasses.replace(SEARCH, pruner=None), ())
    assert seldom.study == often.study
    [pruned, _] = subjects(toy.plan(), dataclasses.replace(SEARCH, steps=1.0, pruner=Median(every=0.5)), ())
    assert pruned.config.train.validate_every == 2


def test_the_comparison_has_the_points_and_what_descends_keeps_its_relation(toy):
    toy.add()
    plan = toy.plan()
    file = toy.experiments / "toy.py"
    file.write_text(
        file.read_text().replace('{"steps": share(0.5)}', '{"steps": share(0.5), "learning_rate": times(0.1)}')
    )
    experiment = load_experiment("toy", toy.experiments)
    points = {"rope": {RATE: 0.004, "model.position.theta": 500.0}}
    changed = make_plan(with_points(experiment, points), load_scale("small", toy.configs), toy.configs, toy.runs)
    rates = {arm.name: arm.training.train.learning_rate for arm in changed.arms}
    assert rates == {"rope": 0.004, "alibi": 2e-3, "yarn": 0.004, "tuned": pytest.approx(0.0004)}
    by_name = {arm.name: arm for arm in changed.arms}
    assert by_name["rope"].model.position.theta == by_name["tuned"].model.position.theta == 500.0
    names = {run.variant: run.name for run in plan.runs if run.seed == 0}
    assert names["alibi"] == {run.variant: run.name for run in changed.runs if run.seed == 0}["alibi"]


def test_a_search_is_decided_by_the_lowest_loss_of_the_finished(toy, some_search):
    plan = toy.plan()
    assert not some_search(plan, "finished", "finished").complete
    assert not some_search(plan, "finished", "finished", "unfinished").complete
    searched = some_search(plan, "finished", "finished", "pruned")
    assert searched.decided
    assert searched.points == {"rope": {RATE: 0.002, "model.num_layers": 2}}
    barren = some_search(plan, "diverged", "impossible", "failed")
    assert (barren.complete, barren.decided, barren.points) == (True, False, {})
    assert "no trial of rope has a loss (1 diverged, 1 impossible, 1 failed)" in barren.why_undecided()
    assert len(barren.plan.runs) == 2


def test_what_is_left_and_the_most_that_is_needed(toy, some_search):
    searched = some_search(toy.plan(), "finished", "unfinished", trials=5)
    assert len(typical_plan(searched).runs) == 4
    assert not typical_plan(some_search(toy.plan(), "finished", trials=1)).runs
    assert {run.arm.model.num_layers for run in largest_plan(searched).runs} == {1, 3}


def test_whether_there_is_a_search(toy):
    add_search(toy)
    experiment, scale = load_experiment("toy", toy.experiments), load_scale("small", toy.configs)
    silent = dataclasses.replace(scale, tune=False)
    plain = dataclasses.replace(experiment, search=None)
    assert Wanted().of(experiment, scale, None).trials == 3
    assert Wanted(trials=7).of(experiment, scale, None).trials == 7
    assert Wanted().of(experiment, silent, None) is None
    assert Wanted(True).of(experiment, silent, None) is experiment.search
    assert Wanted(False).of(experiment, scale, True) is None
    assert Wanted().of(plain, scale, True) is None
    with pytest.raises(ConfigError, match="--tune: a search chooses settings already"):
        Wanted().of(experiment, scale, True)
    with pytest.raises(ConfigError, match=r"experiment toy: has no search\(\)"):
        Wanted(True).of(plain, scale, None)
    with pytest.raises(ConfigError, match="--trials: nothing is searched"):
        Wanted(trials=3).of(plain, scale, None)
    with pytest.raises(ConfigError, match="trials at least 1"):
        Wanted(trials=0).of(experiment, scale, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def search():\n    return 3\n", r"search\(\) must return a Search or None, not 3"),
        (
            FUNCTION.replace("trials=3", 'variants=("rop",)'),
            r"search\(\): no variant is called 'rop'; did you mean 'rope'",
        ),
        (
            FUNCTION + "\n\nfrom jaxgpt.experiment.spec import Tuning\n\ndef tuning():\n    return Tuning()\n",
            "leave one",
        ),
    ],
)
def test_experiments_that_cannot_be(toy, text, message):
    add_search(toy, "\n\n" + text)
    with pytest.raises(ConfigError, match=message):
        load_experiment("toy", toy.experiments)


def test_without_optuna_nothing_runs(toy, monkeypatch, capsys):
    add_search(toy)
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    options = ["--exp", "toy", "--scale", "small", "--runs-dir", str(toy.runs)]
    for verb in ([], ["search"], ["plan"]):
        assert cli.main([*verb, *options], toy.experiments, toy.configs) == 2
        assert capsys.readouterr().err == "error: searches need the extra search: pip install 'jaxgpt[search]'\n"
    assert not toy.runs.exists()
    assert cli.main(["status", "--no-search", *options], toy.experiments, toy.configs) == 0
