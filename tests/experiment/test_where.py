"""Filters of runs, and the plans that are left."""

import json

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.experiment import collect, engine
from jaxgpt.experiment.report import write_report
from jaxgpt.experiment.where import parse_where, select

MORE = """\
        Variant("t5", {"model": {"position": {"type": "t5"}}, "train": {"steps": 8}}, panel="other", group="mine"),
        Variant("tuned", {"train": {"steps": share(0.5)}}, parent="rope"),
        Variant("again", {"train": {"learning_rate": 1e-4}}, parent="tuned"),
        Variant("read", {"model": {"position": {"scaling": {"type": "linear", "factor": 2.0}}}}, parent="again"),
    ]
"""


GIVEN = '''"""What does training on give?"""

from jaxgpt.experiment.spec import Variant


def base():
    return {"from": FOLDER, "include": "data/toy.yaml"}


def variants():
    return [Variant("llama"), Variant("on", {"train": {"steps": 2}}, parent="llama")]


def claims():
    return []
'''


@pytest.fixture
def plan(toy):
    """rope, yarn (its weights), alibi, t5 (more steps, so a baseline of its own), tuned <- again <- read, two seeds."""
    toy.add(MORE)
    return toy.plan()


def chosen(plan, text):
    """(variant, seed) of the runs selected, and what each evaluates where that is more than itself."""
    runs = select(plan, parse_where(text)).runs
    return [
        (run.variant, run.seed, *(one.variant for one in run.evaluations if one.variant != run.variant)) for run in runs
    ]


FIRST, OTHER = "5-gram (rope)", "5-gram (t5)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("variant=alibi", [(FIRST, 0), ("alibi", 0), ("alibi", 1)]),
        ("variant=alibi,seed<1", [(FIRST, 0), ("alibi", 0)]),
        ("seed=1 , variant = alibi|t5", [(FIRST, 0), (OTHER, 0), ("alibi", 1), ("t5", 1)]),
        ("variant~t*,seed=0", [(FIRST, 0), (OTHER, 0), ("rope", 0), ("t5", 0), ("tuned", 0)]),
        ("variant!=alibi|t5|tuned|again|read,seed=0", [(FIRST, 0), ("rope", 0, "yarn")]),
        # an arm that only reads weights is in their run, and asks for no other that does
        ("variant=yarn,seed=1", [(FIRST, 0), ("rope", 1, "yarn")]),
        ("variant!=yarn,variant~rope|yarn,seed=1", [(FIRST, 0), ("rope", 1)]),
        # weights that others begin with come along, and theirs
        ("variant=read,seed=0", [(FIRST, 0), ("rope", 0), ("tuned", 0), ("again", 0, "read")]),
        ("variant=tuned,seed=0", [(FIRST, 0), ("rope", 0), ("tuned", 0)]),
        # baselines
        ("kind=model,variant=t5,seed=0", [("t5", 0)]),
        ("kind!=baseline,variant=t5,seed=0", [("t5", 0)]),
        (f"variant!={FIRST},variant=alibi,seed=0", [("alibi", 0)]),
        (f"variant!={FIRST}|rope|yarn|tuned|again|read,seed=0", [(OTHER, 0), ("alibi", 0), ("t5", 0)]),
        ("kind=baseline", [(FIRST, 0), (OTHER, 0)]),
        (f"variant={OTHER}", [(OTHER, 0)]),
        # keys of variants and settings
        ("panel=other,seed=0", [(OTHER, 0), ("t5", 0)]),
        ("group=mine,seed=0", [(OTHER, 0), ("t5", 0)]),
        ("model.position.type=alibi,seed=0", [(FIRST, 0), ("alibi", 0)]),
        ("model.position=alibi,seed=0", [(FIRST, 0), ("alibi", 0)]),
        ("model.position.scaling=yarn,seed=0", [(FIRST, 0), ("rope", 0, "yarn")]),
        ("model.position.scaling.factor>=2.5,seed=0", [(FIRST, 0), ("rope", 0, "yarn")]),
        ("model.position.scaling=null,variant=rope|alibi,seed=0", [(FIRST, 0), ("rope", 0)]),
        ("model.position.theta!=3,variant=alibi,seed=0", [(FIRST, 0), ("alibi", 0)]),
        ("train.steps>4,seed=0", [(OTHER, 0), ("t5", 0)]),
        ("train.learning_rate<=0.001,seed=0", [(FIRST, 0), ("rope", 0), ("tuned", 0), ("again", 0, "read")]),
        ("train.gradient_clip=1.0,model.bias=false,variant=t5,seed=0", [(OTHER, 0), ("t5", 0)]),
    ],
)  # fmt: skip
def test_what_is_selected(plan, text, expected):
    assert chosen(plan, text) == expected


def test_states_are_those_of_the_folders(plan):
    def put(run, state, evaluated=()):
        run.folder.path.mkdir(parents=True)
        run.folder.update_status(state=state)
        (run.folder.path / "evaluation.json").write_text(json.dumps({one.hash: {} for one in evaluated}))

    rope, alibi, t5 = (next(run for run in plan.runs if run.variant == name) for name in ("rope", "alibi", "t5"))
    put(rope, "finished", rope.evaluations[:1])  # an evaluation was added since
    put(alibi, "finished", alibi.evaluations)
    put(t5, "failed")
    assert [run.state() for run in (rope, alibi, t5)] == ["trained", "finished", "failed"]
    assert chosen(plan, "state=failed") == [(OTHER, 0), ("t5", 0)]
    assert chosen(plan, "state=trained|finished") == [(FIRST, 0), ("rope", 0, "yarn"), ("alibi", 0)]
    assert ("rope", 1, "yarn") in chosen(plan, "state=pending")
    assert parse_where("state=failed").matches(t5)
    assert not parse_where("state=failed").matches(rope)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected KEY and VALUE with one of"),
        ("seed", "--where 'seed': expected KEY and VALUE"),
        ("seed==1", "'seed==1': expected KEY and VALUE"),
        ("seed<", "'seed<': expected KEY and VALUE"),
        ("seed<1,", "expected KEY and VALUE"),
        ("varian=rope", "no such key as 'varian'; did you mean 'variant'"),
        ("modle.width=3", "no such key as 'modle.width'; did you mean 'model'"),
        ("variant<rope", "--where variant<rope: < compares numbers, and variant is a text"),
        ("seed~1*", "~ compares texts, and seed is a number"),
        ("seed<1|2", "seed<1|2: < takes one number"),
        ("seed<two", "'two' is not a number"),
        ("train.steps>=many", "'many' is not a number"),
        ("variant=rope|", "a value is empty"),
        ("state=finishd", "no state is 'finishd'; did you mean 'finished'"),
        ("kind=models", "no kind is 'models'; did you mean 'model'"),
        # what only a plan knows
        ("variant=alib", "no variant is 'alib'; did you mean 'alibi'"),
        ("variant!=alib", "no variant is 'alib'; did you mean 'alibi'"),
        ("panel=othr", "no panel is 'othr'; did you mean 'other'"),
        ("seed=2", r"no run has the seed 2; \(there are: 0, 1\)"),
        ("seed=one", "'one' is not a number"),
        ("model.positon.type=rope", "model has no 'positon'; did you mean 'position'"),
        ("model.position.tipe=rope", "model.position has no 'tipe'; did you mean 'type'"),
        ("train.steps.more=1", "train.steps has no 'more'; it is one value"),
        ("train.steps=many", "'many' is not a number"),
        ("train.steps~4*", "~ compares texts, and train.steps is 4; use ="),
        ("model.position.type<3", "< compares numbers, and model.position.type is 'rope'; use ="),
        ("model.bias=yes", "model.bias is true or false, not 'yes'"),
        ("data=txt", "selects no run"),
        ("train=fast", "train=fast: train is not one value; .there are: accumulation"),
        (
            "variant=alibi,train.steps>100",
            "variant=alibi,train.steps>100: selects no run; variants are rope, alibi, yarn, .* seeds 0, 1",
        ),
        ("seed>=2", "selects no run"),
    ],
)
def test_filters_that_cannot_be(plan, text, message):
    with pytest.raises(ConfigError, match=message.replace("|", r"\|")):
        select(plan, parse_where(text))


def test_a_plan_is_consistent_whatever_is_selected(plan):
    found = select(plan, parse_where("variant=read|t5,seed=1"))
    assert found.seeds == (1,)
    assert [arm.name for arm in found.arms] == ["rope", "t5", "tuned", "again", "read"]
    assert [one.name for one in found.experiment.variants] == [arm.name for arm in found.arms]
    assert {run.arm.name for run in found.runs} <= {arm.name for arm in found.arms}
    assert {run.name for run in found.runs} < {run.name for run in plan.runs}, "with the names they had"
    baselines = select(plan, parse_where("kind=baseline"))
    assert ([arm.name for arm in baselines.arms], baselines.seeds) == (["rope", "t5"], (0,))
    assert set(engine.prepare(found)) == {arm.name for arm in found.arms}


def test_a_baseline_stands_beside_whichever_of_its_arms_is_left(toy):
    found = select(toy.plan(), parse_where("variant=alibi"))
    assert [(run.kind, run.arm.name) for run in found.runs][:2] == [("baseline", "alibi"), ("model", "alibi")]
    assert [arm.name for arm in found.arms] == ["alibi"]
    assert [run.variant for run in engine.pending(found)] == ["5-gram", "alibi", "alibi"]


def test_a_selection_is_reported(toy, tmp_path):
    plan = toy.plan(seeds=3)
    for run in plan.runs:
        done = {
            one.hash: {
                "hash": one.hash,
                "variant": one.variant,
                "measurements": [
                    {"metric": "fixed_target_nll", "context": c, "value": 1.0 + run.seed, "unit": "nats/token"}
                    for c in (4, 16, 64)
                ],
            }
            for one in run.evaluations
        }
        run.folder.path.mkdir(parents=True)
        run.folder.update_status(state="finished")
        (run.folder.path / "evaluation.json").write_text(json.dumps(done))
    whole = collect.make_report(select(plan, parse_where("variant~*")), "x")
    assert whole.results.rows == collect.results_of(plan).rows
    report = collect.make_report(select(plan, parse_where("variant=yarn,seed<2")), "x")
    assert (report.results.variants, report.results.baselines) == (("rope", "yarn"), ("5-gram",))
    assert report.results.seeds("yarn") == [0, 1]
    assert report.facts["seeds"] == 2
    (flat,) = report.verdicts
    assert (flat.verdict, "no results of a variant 'alibi'" in flat.reason) == ("not resolved", True)
    assert write_report(report, tmp_path / "report").exists()


def test_what_no_seed_decides_belongs_to_every_seed(toy, llama_checkpoint):
    (toy.experiments / "toy.py").write_text(GIVEN.replace("FOLDER", repr(str(llama_checkpoint))))
    plan = toy.plan(seeds=3)
    assert chosen(plan, "seed=2") == [("5-gram", 0), ("llama", 0), ("on", 2)]
    assert chosen(plan, "seed=2,variant=llama") == [("5-gram", 0), ("llama", 0)]
    assert select(plan, parse_where("seed=2,variant=llama")).seeds == (2,)


def test_names_of_swept_variants_are_values_like_others():
    (term,) = parse_where("variant=rope-theta=1e+06|base").terms
    assert (term.key, term.operator, term.values) == ("variant", "=", ("rope-theta=1e+06", "base"))
