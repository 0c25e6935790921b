from pathlib import Path

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.experiment import spec
from jaxgpt.experiment.spec import Experiment, Scale, Variant, share, times


def experiment(*variants, base=None):
    return Experiment("e", "", base or {}, variants)


def test_the_list_has_a_line_for_each_experiment(toy):
    (toy.experiments / "broken.py").write_text("def base(:")
    assert spec.list_experiments(toy.experiments) == {"broken": "(not valid Python)", "toy": "Does the toy work?"}


def test_an_experiment_is_loaded_whole(toy):
    loaded = spec.load_experiment("toy", toy.experiments)
    assert [variant.name for variant in loaded.variants] == ["rope", "alibi", "yarn"]
    assert loaded.variant("yarn").parent == "rope"
    assert loaded.claims[0].headline


def test_an_unknown_experiment_names_the_nearest(toy):
    with pytest.raises(ConfigError, match=r"no experiment is called 'toi'; did you mean 'toy'\? \(there are: toy\)"):
        spec.load_experiment("toi", toy.experiments)


def test_a_file_that_lacks_a_function_says_which(toy):
    (toy.experiments / "mine.py").write_text("def base(): ...\n\n\ndef variants(): ...\n")
    with pytest.raises(ConfigError, match=r"--exp mine: .*mine\.py does not define claims\(\), which every experiment"):
        spec.load_experiment("mine", toy.experiments)


def test_a_file_that_is_not_python_says_where(toy):
    (toy.experiments / "broken.py").write_text("def base(:")
    with pytest.raises(ConfigError, match=r"broken\.py, line 1: not valid Python"):
        spec.load_experiment("broken", toy.experiments)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([], "variants\\(\\) is empty"),
        ([Variant("a"), Variant("a")], "used twice"),
        ([Variant("a/b")], "letters, digits"),
        ([Variant("5-gram")], "not '5-gram'"),
        ([Variant("rope"), Variant("b", parent="rop")], "no trained variant is called 'rop'; did you mean 'rope'"),
        ([Variant("a"), Variant("b", parent="a"), Variant("c", parent="b")], "no trained variant is called 'b'"),
        ([Variant("a", {"threads": 2})], "may override model, data, train, not 'threads'"),
        ([Variant("a", {"evaluate": {}})], "not 'evaluate'"),
        ([Variant("a"), Variant("b", {"evaluate": {}}, "a")], "may override model, data, train, extend, not"),
        ([Variant("a", {"extend": {"type": "yarn"}})], "may override model, data, train, not 'extend'"),
        ([Variant("a"), Variant("b", {"start": {}}, "a")], "may override model, data, train, extend, not 'start'"),
        (
            [Variant("a", {"train": {}}, "c"), Variant("b", {"train": {}}, "a"), Variant("c", {"train": {}}, "b")],
            "is its own ancestor",
        ),
    ],
)
def test_experiments_that_cannot_be(variants, message):
    with pytest.raises(ConfigError, match=message):
        spec.check(experiment(*variants))


def test_scales(toy):
    scale = spec.load_scale("small", toy.configs)
    assert (scale.seeds, scale.description) == (2, "as small as it gets")
    assert scale.config["train"]["steps"] == 4
    with pytest.raises(ConfigError, match="no scale is called 'smal'; did you mean 'small'"):
        spec.load_scale("smal", toy.configs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 3\nconfig: {}\n", "seed: no such key; did you mean 'seeds'"),
        ("seeds: 0\nconfig: {}\n", "seeds: expected a whole number"),
        ("seeds: true\nconfig: {}\n", "seeds: expected a whole number"),
        ("seeds: 2\n", "config: must be a mapping"),
        ("seeds: 2\ntune: 1\nconfig: {}\n", "tune: expected true or false, got 1"),
        ("seeds: 2\nconfig: {}\nfor_data: text\n", "for_data: must be a mapping from kinds of data"),
        ("seeds: 2\nconfig: {}\nfor_data: {texts: {}}\n", "for_data: no data is called 'texts'; did you mean 'text'"),
        ("seeds: 2\nconfig: {}\nfor_data: {text: {train: {}}}\n", "for_data.text: train: no such key"),
        ("seeds: 2\nconfig: {}\nfor_data: {text: {seeds: 0}}\n", "for_data.text: seeds: expected a whole number"),
    ],
)
def test_scales_that_cannot_be(toy, text, message):
    (toy.configs / "scale" / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        spec.load_scale("bad", toy.configs)


def test_a_scale_has_more_for_a_kind_of_data(toy):
    (toy.configs / "scale" / "two.yaml").write_text(
        "{seeds: 2, tune: false, config: {train: {steps: 4}}, "
        "for_data: {text: {seeds: 5, config: {train: {batch_size: 3}}}}}"
    )
    scale = spec.load_scale("two", toy.configs)
    assert scale.on("text") == Scale("two", 5, {"train": {"steps": 4, "batch_size": 3}}, tune=False)
    assert scale.on("other") == Scale("two", 2, {"train": {"steps": 4}}, tune=False)


def test_the_kind_of_data_is_that_of_all_layers(tmp_path):
    child = Variant("child", {"data": "b"})
    one = experiment(child, base={"data": {"type": "a"}})
    assert spec.data_kind(experiment(child), Variant("x"), [], tmp_path) == "text"
    assert spec.data_kind(one, Variant("x"), [], tmp_path) == "a"
    assert spec.data_kind(one, child, [], tmp_path) == "b"
    assert spec.data_kind(one, child, [("data.type", "c")], tmp_path) == "c"


def test_the_shipped_scales_load():
    configs = Path(__file__).resolve().parents[2] / "configs"
    assert {"smoke", "laptop", "tiny", "125m", "gpu", "8gpu", "tpu-slice"} <= set(spec.list_scales(configs))
    for name in spec.list_scales(configs):
        scale = spec.load_scale(name, configs)
        assert scale.description, name
        assert scale.seeds >= (1 if name == "smoke" else 3), name


def test_layers_lie_in_order(tmp_path):
    """defaults < included < base < scale < parent < variant < --set, each seen winning over the one below."""
    (tmp_path / "file.yaml").write_text("train: {b: file, c: file, d: file, e: file, f: file, g: file}\n")
    defaults = {"train": dict.fromkeys("abcdefg", "default")}
    base = {"include": ["file.yaml"], "train": dict.fromkeys("cdefg", "base")}
    scale = Scale("s", 1, {"train": dict.fromkeys("defg", "scale")})
    parent = Variant("parent", {"train": dict.fromkeys("efg", "parent")})
    child = Variant("child", {"train": dict.fromkeys("fg", "child")}, parent="parent")
    raw = spec.resolve(experiment(parent, child, base=base), scale, child, [("train.g", "set")], tmp_path, defaults)
    assert list(raw["train"].values()) == ["default", "file", "base", "scale", "parent", "child", "set"]


def test_relative_settings_follow_whatever_set_them(tmp_path):
    scale = Scale("s", 1, {"train": {"steps": 25, "rate": 0.5}, "data": {"length": 8}})
    root = Variant("root")
    tuned = Variant("tuned", {"train": {"steps": share(0.1), "rate": times(0.1)}, "data": {"length": times(4)}}, "root")
    again = Variant("again", {"extend": {"type": "yarn"}, "train": {"steps": share(0.01), "rate": 3.0}}, "tuned")
    one = experiment(root, tuned, again)
    assert [variant.trains for variant in one.variants] == [True, True, True]
    assert not Variant("b", {"model": {}, "extend": {}}, "root").trains
    raw = spec.resolve(one, scale, tuned, [], tmp_path, {})
    assert raw == {"train": {"steps": 2, "rate": pytest.approx(0.05)}, "data": {"length": 32}}
    assert spec.resolve(one, scale, tuned, [("train.steps", 500)], tmp_path, {})["train"]["steps"] == 50
    raw = spec.resolve(one, scale, again, [], tmp_path, {})
    assert raw == {"train": {"steps": 1, "rate": 3.0}, "data": {"length": 32}}
    wrong = Variant("wrong", {"train": {"rate": share(0.1)}})
    with pytest.raises(ConfigError, match=r"variant 'wrong': train.rate: share\(0.1\) needs a whole number .* is 0.5"):
        spec.resolve(experiment(wrong), scale, wrong, [], tmp_path, {})


def test_a_scale_says_nothing_of_protocols_that_an_experiment_leaves_out(tmp_path):
    base = {"evaluate": {"protocols": {"sliding": None, "by_position": {"rows": 2}}}}
    scale = Scale("s", 1, {"evaluate": {"protocols": {"sliding": {"stride": 1}, "by_position": {"rows": 8}}}})
    raw = spec.resolve(experiment(Variant("a"), base=base), scale, Variant("a"), [], tmp_path, {})
    assert raw["evaluate"]["protocols"] == {"sliding": None, "by_position": {"rows": 8}}


def test_sections_that_do_not_exist(tmp_path):
    one = experiment(Variant("a"))
    with pytest.raises(ConfigError, match="modle: no such key; did you mean 'model'"):
        spec.resolve(one, Scale("s", 1, {}), one.variants[0], [("modle.width", 3)], tmp_path, {})
    with pytest.raises(ConfigError, match="--seeds"):
        spec.resolve(one, Scale("s", 1, {"seed": 3}), one.variants[0], [], tmp_path, {})


def test_a_variant_may_be_relative_to_what_lies_below(tmp_path):
    longer = Variant("longer", {"data": {"sequence_length": times(2)}, "train": {"batch_size": times(0.5)}})
    one = experiment(longer, base={"data": {"sequence_length": 64}, "train": {"batch_size": 6, "learning_rate": 1e-3}})
    raw = spec.resolve(one, Scale("s", 1, {"data": {"sequence_length": 128}}), longer, [], tmp_path, {})
    assert raw["data"]["sequence_length"] == 256
    assert (raw["train"]["batch_size"], type(raw["train"]["batch_size"])) == (3, int)
    with pytest.raises(ConfigError, match=r"variant 'longer': train\.batch_size: times\(0\.5\) makes 3\.5 of 7"):
        spec.resolve(one, Scale("s", 1, {"train": {"batch_size": 7}}), longer, [], tmp_path, {})
    wrong = Variant("wrong", {"train": {"stepz": times(2)}})
    with pytest.raises(ConfigError, match=r"train\.stepz: times\(2\) needs a number to multiply, and below it is None"):
        spec.resolve(experiment(wrong, base={}), Scale("s", 1, {}), wrong, [], tmp_path, {})
