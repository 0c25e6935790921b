from pathlib import Path

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.experiment.plan import make_plan
from jaxgpt.experiment.spec import list_scales, load_experiment, load_scale

ROOT = Path(__file__).resolve().parents[2]


def names(plan):
    return [run.name for run in plan.runs]


def hashes(plan, variant):
    return [one.hash for run in plan.runs for one in run.evaluations if one.variant == variant]


def test_trained_variants_times_seeds_and_the_baseline(toy):
    plan = toy.plan()
    assert [(run.variant, run.seed) for run in plan.runs] == [
        ("5-gram", 0),
        ("rope", 0),
        ("alibi", 0),
        ("rope", 1),
        ("alibi", 1),
    ]
    assert [one.variant for one in plan.runs[1].evaluations] == ["rope", "yarn"]
    assert plan.seeds == (0, 1)
    assert len(toy.plan(seeds=3).runs) == 7
    assert plan.directory == toy.runs / "toy"
    assert (plan.threads, plan.train_length) == (1, 16)


def test_the_configuration_of_a_run_is_its_seed_on_the_same_settings(toy):
    plan = toy.plan()
    first, second = (run for run in plan.runs if run.variant == "rope")
    assert (first.config["seed"], second.config["seed"]) == (0, 1)
    assert {**first.config, "seed": 1} == second.config
    assert first.config["model"]["position"]["type"] == "rope"
    assert first.config["train"]["steps"] == 4


def test_names_are_stable_and_follow_what_training_depends_on(toy):
    plan = toy.plan()
    assert names(plan) == names(toy.plan())
    assert names(plan)[1].startswith("rope-seed0-")
    changed = toy.plan(["train.steps=5"])
    assert not set(names(plan)) & set(names(changed))
    assert names(toy.plan(["train.checkpoint_every=7"])) == names(plan)  # changes no result
    assert not set(names(plan)[1:]) & set(names(toy.plan(["threads=2"]))[1:])


def test_another_evaluation_never_trains_again(toy):
    plan, longer = toy.plan(), toy.plan(["evaluate.protocols.fixed_target.multiples=[0.25,1,2]"])
    assert names(plan)[1:] == names(longer)[1:]
    for variant in ("rope", "alibi", "yarn", "5-gram"):
        assert not set(hashes(plan, variant)) & set(hashes(longer, variant))


def test_an_arm_that_only_evaluates_follows_its_parents_training(toy):
    plan = toy.plan()
    assert len(set(hashes(plan, "yarn"))) == 2
    assert not set(hashes(plan, "yarn")) & set(hashes(toy.plan(["train.learning_rate=1e-3"]), "yarn"))


def test_another_baseline_measures_no_model_again(toy):
    plan, other = toy.plan(), toy.plan(["evaluate.ngram.order=3"])
    assert hashes(plan, "rope") == hashes(other, "rope")
    assert hashes(plan, "5-gram") != hashes(other, "5-gram")
    assert "5-gram" not in {run.variant for run in toy.plan(["evaluate.ngram=null"]).runs}


def test_the_baseline_learns_from_as_many_tokens_as_the_models(toy):
    assert toy.plan().runs[0].config["ngram"]["max_tokens"] == 4 * 2 * 16
    assert toy.plan(["evaluate.ngram.max_tokens=50"]).runs[0].config["ngram"]["max_tokens"] == 50


def test_several_baselines_have_names_of_their_own(toy):
    """Arms that see other tokens have another baseline, whose rows must not be taken for the first one's."""
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text().replace('{"model": {"position": "alibi"}}', '{"train": {"steps": 8}}'))
    baselines = [run for run in toy.plan().runs if run.kind == "baseline"]
    assert [run.variant for run in baselines] == ["5-gram (rope)", "5-gram (alibi)"]
    assert [one.variant for run in baselines for one in run.evaluations] == ["5-gram (rope)", "5-gram (alibi)"]
    assert [run.config["ngram"]["max_tokens"] for run in baselines] == [4 * 2 * 16, 8 * 2 * 16]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.position.type=alibi"],
            r"--set model.position.type=alibi: makes the variants 'rope' and 'alibi' equal",
        ),
        (["train.steps=5", "model.position.type=rope"], r"--set model.position.type=rope: makes the variants"),
    ],
)
def test_settings_that_make_two_arms_equal(toy, overrides, message):
    with pytest.raises(ConfigError, match=message):
        toy.plan(overrides)


def test_a_setting_that_undoes_an_evaluated_arm(toy):
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text().replace('"position": "alibi"', '"norm": "rmsnorm"'))
    assert len(toy.plan().arms) == 3
    with pytest.raises(ConfigError, match="'rope' and 'yarn' equal"):
        toy.plan(["model.position.scaling=null"])


def test_settings_that_only_hold_together_are_named_together(toy):
    """The first alone is no configuration, so neither can be blamed by itself."""
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text().replace('"position": "alibi"', '"num_heads": 4'))
    with pytest.raises(ConfigError, match=r"equal with --set model\.num_heads=3 model\.width=12"):
        toy.plan(["model.num_heads=3", "model.width=12"])


def test_variants_that_are_equal_without_any_setting(toy):
    file = toy.experiments / "toy.py"
    file.write_text(file.read_text().replace('"position": "alibi"', '"position": "rope"'))
    with pytest.raises(ConfigError, match="experiment toy: the variants 'rope' and 'alibi' are equal with scale small"):
        toy.plan()


def test_an_arm_may_go_below_a_position_that_another_layer_replaced(toy):
    """`scaling: {type: yarn}` on `{type: rope}` is a field of rope, not an encoding for layers called `scaling`."""
    file = toy.experiments / "toy.py"
    text = file.read_text().replace('"position": "rope"', '"position": "nope"')
    file.write_text(text.replace('Variant("rope", ', 'Variant("rope", {"model": {"position": {"type": "rope"}}}, '))
    yarn = next(arm for arm in toy.plan().arms if arm.name == "yarn")
    assert yarn.model.position.scaling.factor == 4.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.widht=3"], "model.widht: no such key; did you mean 'width'"),
        (["modle.width=3"], "modle: no such key"),
        (["threads=0"], "threads at least 1"),
        (["seed=3"], "--seeds"),
        (["evaluate.protocols.fixed_target.placess=3"], "evaluate.protocols.fixed_target.placess: no such key"),
    ],
)
def test_wrong_settings_name_their_path(toy, overrides, message):
    with pytest.raises(ConfigError, match=message):
        toy.plan(overrides)


@pytest.mark.parametrize("name", list_scales(ROOT / "configs"))
def test_every_shipped_scale_plans_the_main_experiment(name, tmp_path):
    experiment = load_experiment("rope_vs_alibi", ROOT / "experiments")
    plan = make_plan(experiment, load_scale(name, ROOT / "configs"), ROOT / "configs", tmp_path)
    assert len(set(names(plan))) == 4 * len(plan.seeds) + 1
    assert {arm.training.data.sequence_length for arm in plan.arms} == {plan.train_length}


def test_a_variant_that_trains_on_comes_after_its_parent(toy):
    toy.add()
    plan = toy.plan()
    assert [run.variant for run in plan.runs] == ["5-gram", "rope", "alibi", "tuned", "rope", "alibi", "tuned"]
    assert [run.after for run in plan.runs[1:4]] == ["", "", plan.runs[1].name]
    for parent, run in ((plan.runs[1], plan.runs[3]), (plan.runs[4], plan.runs[6])):
        assert run.after == parent.name
        assert run.config["start"]["hash"] == parent.hash
        assert run.config["start"]["folder"] == str(parent.folder.path)
        assert (run.config["train"]["steps"], run.config["data"]["sequence_length"]) == (2, 64)
        assert run.config["seed"] == parent.seed
        assert [one.variant for one in run.evaluations] == ["tuned"]
    assert [one.variant for one in plan.runs[1].evaluations] == ["rope", "yarn"]


def test_an_extension_knows_the_length_its_weights_were_trained_at(toy):
    toy.add()
    arms = {arm.name: arm for arm in toy.plan().arms}
    model = arms["tuned"].model
    scaling = model.position.scaling
    assert (type(scaling).__name__, scaling.factor, scaling.original_length) == ("YarnConfig", 4.0, None)
    assert (model.train_length, arms["tuned"].training.data.sequence_length) == (16, 64)
    assert arms["tuned"].training.model == arms["tuned"].model
    assert {arm.length for arm in arms.values()} == {16}, "contexts are the same for all arms"
    assert arms["yarn"].training == arms["rope"].training


def test_training_on_follows_what_its_parent_was_trained_with(toy):
    toy.add()
    plan, before = toy.plan(), toy.plan(["threads=1"])
    assert names(plan) == names(before)
    tuned = names(plan)[3]
    changed = toy.plan(["train.steps=5"])
    assert changed.runs[3].config["train"]["steps"] == 2
    assert changed.runs[3].name != tuned


def test_arms_may_evaluate_weights_that_were_trained_on(toy):
    toy.add("""        Variant("more", {"train": {"learning_rate": 1e-4}}, parent="rope"),
        Variant("wide", {"extend": {"type": "linear", "factor": 2.0}}, parent="more"),
    ]
""")
    plan = toy.plan(seeds=1)
    more = plan.runs[3]
    assert (more.variant, more.after) == ("more", plan.runs[1].name)
    assert [one.variant for one in more.evaluations] == ["more", "wide"]
    assert more.evaluations[1].model["position"]["scaling"]["type"] == "linear"
    assert more.evaluations[1].model["train_length"] == 16


def test_an_extension_without_a_rope_names_the_variant(toy):
    toy.add('        Variant("wide", {"extend": "linear"}, parent="alibi"),\n    ]\n')
    with pytest.raises(ConfigError, match=r"variant 'wide': extend: rope is what can be scaled, .* alibi"):
        toy.plan()


def test_at_least_one_seed(toy):
    with pytest.raises(ConfigError, match="--seeds 0"):
        toy.plan(seeds=0)


def test_a_group_is_measured_at_the_contexts_of_its_first_variant(toy):
    file = toy.experiments / "toy.py"
    arms = """[
        Variant("whole", {"model": {"position": "alibi"}}, group="ALiBi"),
        Variant("half", {"model": {"position": "alibi"}, "data": {"sequence_length": times(0.5)},
                         "train": {"batch_size": times(2)}}, group="ALiBi"),
        Variant("alone", {"data": {"sequence_length": times(0.5)}}),
    ]"""
    text = file.read_text().replace("import Variant", "import Variant, times")
    begin, end = text.index("return [\n        Variant"), text.index("def claims")
    file.write_text(f"{text[:begin]}return {arms}\n\n\n{text[end:]}")
    plan = toy.plan()
    assert [(arm.name, arm.length, arm.measured_in) for arm in plan.arms] == [
        ("whole", 16, 16),
        ("half", 8, 16),
        ("alone", 8, 8),
    ]
    assert {run.evaluations[0].length for run in plan.runs if run.variant == "half"} == {16}
    assert len([run for run in plan.runs if run.kind == "baseline"]) == 2, "one serves the group"
