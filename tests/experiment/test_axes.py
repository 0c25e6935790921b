"""What arms differ in beyond their axes."""

from pathlib import Path

import pytest

from jaxgpt.config import parse_overrides
from jaxgpt.errors import ConfigError
from jaxgpt.experiment import spec
from jaxgpt.experiment.axes import unnamed_differences
from jaxgpt.experiment.plan import make_plan
from jaxgpt.experiment.spec import Experiment, Variant, load_experiment, load_scale, times
from jaxgpt.experiment.sweep import axis, grid, variants_of

ROOT = Path(__file__).resolve().parents[2]
LAYERNORM = {"norm": {"type": "layernorm"}}


@pytest.fixture
def found(toy):
    """found(variants, axes) -> the sentences of an experiment on the toy's text."""

    def warn(variants, axes=("model.position",), chosen=(), **more):
        model = {"num_layers": 1, "num_heads": 2, "width": 16, "position": "rope", "norm": {"type": "rmsnorm"}}
        base = {"include": "data/toy.yaml", "model": model}
        experiment = Experiment("e", "", base, tuple(variants), axes=tuple(axes), **more)
        spec.check(experiment)
        plan = make_plan(experiment, load_scale("small", toy.configs), toy.configs, toy.runs, 1)
        return unnamed_differences(plan, chosen)

    return warn


def alibi(**model):
    return Variant("alibi", {"model": {"position": {"type": "alibi"}, **model}})


def test_two_arms_that_differ_in_more_than_their_axis(found):
    assert found([Variant("rope"), alibi()]) == []
    assert found([Variant("rope"), alibi(**LAYERNORM)]) == [
        "rope and alibi differ in model.norm.type (rmsnorm, layernorm), which is none of the axes model.position"
    ]
    assert found([Variant("rope"), alibi(**LAYERNORM)], ["model"]) == []
    assert found([Variant("rope"), alibi(**LAYERNORM)], ["model.norm", "model.position.type"]) == []
    assert found([Variant("rope"), alibi(**LAYERNORM)], ()) == [], "nobody says what the axes are"


def test_an_axis_is_no_prefix_of_letters(found):
    variants = [Variant("a"), Variant("b", {"model": {"num_heads": 4}})]
    assert found(variants, ["model.num_heads"]) == []
    assert "model.num_heads (2, 4)" in found(variants, ["model.num"])[0]


def test_a_difference_of_many_arms_is_said_once(found):
    variants = [
        *(Variant(f"r{number}", {"train": {"learning_rate": 0.001 * number}}) for number in range(1, 7)),
        *(Variant(f"t{number}", {"model": {"position": {"type": "t5", "num_buckets": number}}}) for number in (8, 16)),
        alibi(**LAYERNORM, bias=True),
    ]
    many, axes = "r1, r2, r3 and 5 more", "which is none of the axes model.position, train"
    assert found(variants, ["model.position", "train"]) == [
        f"9 arms differ in model.norm.type (rmsnorm: {many}; layernorm: alibi), {axes}",
        f"9 arms differ in model.bias (false: {many}; true: alibi), {axes}",
    ]
    axes = "which is none of the axes model.norm, model.bias, train"
    assert found(variants, ["model.norm", "model.bias", "train"]) == [
        f"9 arms differ in model.position.type (rope: r1, r2, r3 and 3 more; t5: t8, t16; alibi: alibi), {axes}",
        f"t8 and t16 differ in model.position.num_buckets (8, 16), {axes}",
    ]


def test_what_arms_of_a_kind_differ_in_is_seen_beside_others(found):
    variants = [Variant("rope"), Variant("far", {"model": {"position": {"theta": 500.0}}}), alibi()]
    (theta,) = found(variants, ["model.position.type"])
    assert theta == (
        "rope and far differ in model.position.theta (10000.0, 500.0), which is none of the axes model.position.type"
    )


def test_a_setting_that_only_one_has(found):
    scaled = Variant("scaled", {"model": {"position": {"scaling": {"type": "yarn", "factor": 4.0}}}})
    (text,) = found([Variant("rope"), scaled], ["train"])
    assert text.startswith("rope and scaled differ in model.position.scaling (null, yarn), which is none of")
    groups = Variant("groups", {"train": {"groups": [{"match": ["blocks/mixer/query"], "learning_rate": 0.0}]}})
    (text,) = found([Variant("rope"), groups], ["model"])
    assert "train.groups ([], [{" in text
    assert len(text) < 140


def test_what_is_chosen_for_arms_is_not_theirs(found):
    wider = alibi(feedforward={"type": "dense", "hidden": 60})
    slower = Variant("slower", {"train": {"learning_rate": 1e-5}})
    assert "model.feedforward.hidden" in found([Variant("rope"), wider])[0]
    assert found([Variant("rope"), wider], match="parameters") == []
    assert "train.learning_rate" in found([Variant("rope"), slower])[0]
    assert found([Variant("rope"), slower], chosen=("train.learning_rate",)) == []


def test_variants_with_a_parent_are_meant_to_differ(found):
    children = [
        Variant("tuned", {"train": {"steps": 2}, "extend": {"type": "yarn", "factor": 4.0}}, parent="rope"),
        Variant("read", {"extend": {"type": "linear", "factor": 2.0}}, parent="rope"),
    ]
    assert found([Variant("rope"), *children, alibi()]) == []


def test_what_a_model_takes_from_its_data_is_a_difference_of_the_data(found):
    longer = Variant("longer", {"data": {"sequence_length": times(2)}})
    assert found([Variant("rope"), longer], ["data"]) == []
    (text,) = found([Variant("rope"), longer], ["train"])
    assert "data.sequence_length (16, 32)" in text
    lengths = Variant("lengths", {"model": {"train_length": 8}})
    assert "model.train_length (16, 8)" in found([Variant("rope"), lengths])[0]


def test_the_variants_of_a_sweep_name_their_axes(toy):
    file = toy.experiments / "toy.py"
    text = file.read_text()
    file.write_text(
        text[: text.index("def variants")]
        + "from jaxgpt.experiment.sweep import axis, grid, variants_of\n\n\ndef variants():\n"
        + '    swept = variants_of(axis("model.position.type", ["rope", "alibi"]))\n'
        + '    return [*swept, Variant("other", {"model": {"position": "nope", "width": 32}})]\n\n\n'
        + text[text.index("def claims") :]
    )
    assert load_experiment("toy", toy.experiments).axes == ("model.position.type",)
    assert unnamed_differences(toy.plan()) == [
        "3 arms differ in model.width (16: rope, alibi; 32: other), which is none of the axes model.position.type"
    ]
    file.write_text(file.read_text() + '\n\ndef axes():\n    return ["model"]\n')
    assert unnamed_differences(toy.plan()) == []
    file.write_text(file.read_text().replace('return ["model"]', 'return ["modle.width"]'))
    with pytest.raises(ConfigError, match=r"axes\(\): 'modle.width' is no path that a variant can set; did you mean"):
        toy.plan()


def test_extensions_of_given_weights_are_named_by_extend(toy, llama_checkpoint):
    variants = variants_of(
        grid(axis("extend.type", ["yarn", "linear"]), axis("extend.factor", [2.0]), axis("train.steps", [2]))
    )
    base = {"from": str(llama_checkpoint), "include": "data/toy.yaml"}
    plans = [
        make_plan(
            Experiment("e", "", base, tuple(variants), axes=axes),
            load_scale("small", toy.configs), toy.configs, toy.runs, 1, parse_overrides([]),
        )
        for axes in (variants[0].axes, ("train",))
    ]  # fmt: skip
    assert unnamed_differences(plans[0]) == []
    assert "scaling" in unnamed_differences(plans[1])[0]


@pytest.mark.parametrize("name", spec.list_experiments(ROOT / "experiments"))
def test_the_shipped_experiments_compare_nothing_else(name):
    configs = ROOT / "configs"
    experiment = load_experiment(name, ROOT / "experiments")
    plan = make_plan(experiment, load_scale("laptop", configs), configs, Path("runs"))
    assert unnamed_differences(plan) == []
    roots = [variant for variant in experiment.variants if variant.parent is None]
    assert bool(experiment.axes) == (len(roots) > 1), "experiments of more than one trained arm say what differs"
