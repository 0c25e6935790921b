"""Configurations as text and back: strict, named mistakes, layers, overrides, hashes."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from jaxgpt.config import (
    FrozenMapping,
    content_hash,
    decode,
    encode,
    merge,
    override,
    parse_overrides,
    read_yaml,
    unhashed,
    write_yaml,
)
from jaxgpt.data.dataset import DataConfig
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import NopeConfig, PositionConfig
from jaxgpt.nn.position.rope_scaling import LinearConfig, YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.train.run import RunConfig, load_config


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclasses.dataclass(frozen=True)
class Outer:
    """One field of every type a configuration may hold."""

    name: str
    count: int = 1
    rate: float = 0.5
    flag: bool = False
    mode: Literal["one", "two"] = "one"
    maybe: float | None = None
    sizes: tuple[int, ...] = ()
    by_name: Mapping[str, Inner] = FrozenMapping()
    either: int | Mapping[str, int | None] | None = None
    text_or_list: str | tuple[str, ...] = ""
    inner: Inner = Inner()
    anything: Any = None
    silent: int = unhashed(3)

    def __post_init__(self):
        if self.count > 100:
            raise ValueError(f"count {self.count} is more than 100")


def refused(raw, *parts, kind=Outer, path=""):
    with pytest.raises(ConfigError) as caught:
        decode(kind, raw, path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# --------------------------------------------------------------------------------------------------------------- decode


def test_every_type_is_decoded():
    raw = {"name": "x", "count": 3, "rate": 2, "flag": True, "mode": "two", "maybe": None, "sizes": [1, 2]}
    raw |= {"by_name": {"a": {"size": 4}}, "either": {"local": 8, "global": None}, "text_or_list": ["a", "b"]}
    raw |= {"inner": {"size": 2}, "anything": [1, {"x": 2}]}
    config = decode(Outer, raw)
    assert config == Outer(
        name="x",
        count=3,
        rate=2.0,
        flag=True,
        mode="two",
        sizes=(1, 2),
        by_name=FrozenMapping({"a": Inner(4)}),
        either=FrozenMapping({"local": 8, "global": None}),
        text_or_list=("a", "b"),
        inner=Inner(2),
        anything=[1, {"x": 2}],
    )
    assert isinstance(config.rate, float)
    assert decode(Outer, {"name": "x", "either": 5, "text_or_list": "a"}) == Outer("x", either=5, text_or_list="a")
    assert decode(Outer, config) is config


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"nam": "x"}, ["nam: no such key; did you mean 'name'?", "count, either, flag"]),
        ({"name": "x", "inner": {"sise": 1}}, ["inner.sise: no such key; did you mean 'size'? (there are: size)"]),
        ({}, ["name: must be given"]),
        ({"name": 3}, ["name: expected a text, got 3"]),
        ({"name": None}, ["name: expected a text, got nothing (null)"]),
        ({"name": "x", "count": None}, ["count: expected a whole number, got nothing (null)"]),
        ({"name": "x", "count": 1.0}, ["count: expected a whole number, got 1.0"]),
        ({"name": "x", "count": True}, ["count: expected a whole number, got True"]),
        ({"name": "x", "count": "3"}, ["count: expected a whole number, got '3'"]),
        ({"name": "x", "rate": math.nan}, ["rate: expected a finite number, got nan"]),
        ({"name": "x", "maybe": math.inf}, ["maybe: expected a finite number, got inf"]),
        ({"name": "x", "rate": False}, ["rate: expected a number, got False"]),
        ({"name": "x", "flag": 1}, ["flag: expected true or false, got 1"]),
        ({"name": "x", "mode": "to"}, ["mode: 'to' is not possible; did you mean 'two'? (there are: one, two)"]),
        ({"name": "x", "sizes": 3}, ["sizes: expected a list, got 3"]),
        ({"name": "x", "sizes": [1, "a"]}, ["sizes[1]: expected a whole number, got 'a'"]),
        ({"name": "x", "by_name": [1]}, ["by_name: expected a mapping, got [1]"]),
        ({"name": "x", "by_name": {"a": {"sise": 1}}}, ["by_name.a.sise: no such key; did you mean 'size'?"]),
        ({"name": "x", "either": {"local": "a"}}, ["either.local: expected a whole number, got 'a'"]),
        ({"name": "x", "either": "a"}, ["either: expected a whole number, got 'a'"]),
        ({"name": "x", "inner": 3}, ["inner: expected a mapping, got 3"]),
        ({"name": "x", "count": 101}, ["configuration: count 101 is more than 100"]),
        ([1], ["configuration: expected a mapping, got [1]"]),
    ],
)
def test_mistakes_name_the_path_and_what_exists(raw, parts):
    refused(raw, *parts)


def test_variants_are_named_by_type_and_a_word_is_short_for_one():
    assert decode(PositionConfig, "alibi") == AlibiConfig() == decode(PositionConfig, {"type": "alibi"})
    yarn = decode(PositionConfig, {"type": "rope", "theta": 500, "scaling": {"type": "yarn", "factor": 8}})
    assert yarn == RopeConfig(theta=500.0, scaling=YarnConfig(factor=8.0))
    assert decode(PositionConfig, {"type": "rope", "scaling": "linear"}) == RopeConfig(scaling=LinearConfig())


def test_mistakes_about_variants():
    refused(
        "ropee",
        "p.type: no position is called 'ropee'; did you mean 'rope'? (there are: alibi, ",
        kind=PositionConfig,
        path="p",
    )
    refused({"theta": 3}, "p: needs `type:`", "nope, p_rope", kind=PositionConfig, path="p")
    refused({"theta": 3}, "position: needs `type:`", kind=PositionConfig)
    refused(None, "p: expected a position, got nothing (null)", kind=PositionConfig, path="p")
    refused(
        {"type": "rope", "scaling": {"type": "yan"}},
        "p.scaling.type: no scaling",
        "'yarn'",
        kind=PositionConfig,
        path="p",
    )
    refused({"type": "rope", "tetha": 3}, "p.tetha: no such key; did you mean 'theta'?", kind=PositionConfig, path="p")
    refused({"type": "alibi", "theta": 3}, "p.theta: no such key", kind=PositionConfig, path="p")
    refused({"type": "rope", "theta": 0.5}, "p: theta: 0.5 must be greater than 1", kind=PositionConfig, path="p")
    refused({"type": ["rope"]}, "p.type: no position", kind=PositionConfig, path="p")


# ------------------------------------------------------------------------------------------------------- YAML and files


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_of_yaml_1_2_are_numbers(tmp_path):
    raw = read_yaml(write(tmp_path / "a.yaml", "a: 1e-3\nb: 2.5E+6\nc: .5e1\nd: -1e2\ne: 12\nf: 1e\ng: '1e3'\n"))
    assert raw == {"a": 0.001, "b": 2.5e6, "c": 5.0, "d": -100.0, "e": 12, "f": "1e", "g": "1e3"}
    assert load_config([], ["train.learning_rate=1e-3"]).train.learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3: 'a' is given twice"]),
        ("a: {x: 1, x: 2}\n", ["line 1: 'x' is given twice"]),
        ("a: [1\n", ["not valid YAML"]),
        ("a: \x00\n", ["not valid YAML"]),
        ("a: 2020-13-45\n", ["not valid YAML"]),
        ("[1]: 2\n", ["line 1: [1] cannot be a key"]),
        ("- 1\n", ["must be a mapping"]),
        ("", ["must be a mapping"]),
        ("a: !!python/object:os.system {}\n", ["not valid YAML"]),
        ("include: 5\n", ["include: expected the name of a file"]),
        ("include: [a.yaml]\n", ["includes itself"]),
        ("include: missing.yaml\n", ["missing.yaml: cannot be read (No such file or directory)"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path, text, parts):
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"a\.yaml: is not UTF-8"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_includes_lie_below_the_file_that_names_them(tmp_path):
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "one.yaml", "a: 1\nb: {x: 1, y: 1}\n")
    write(tmp_path / "two.yaml", "b: {y: 2}\nc: 2\n")
    both = read_yaml(write(tmp_path / "top.yaml", "include: [below/one.yaml, two.yaml]\nc: 3\n"))
    assert both == {"a": 1, "b": {"x": 1, "y": 2}, "c": 3}
    assert read_yaml(write(tmp_path / "top.yaml", "include: two.yaml\nc: 4\n")) == {"b": {"y": 2}, "c": 4}


def test_written_text_is_read_back(tmp_path):
    raw = {"b": "ünï 漢", "a": [1, 0.001, None, True, "no", "1e3"], "c": {"d": []}}
    assert read_yaml(write(tmp_path / "a.yaml", write_yaml(raw))) == raw
    assert write_yaml(raw).startswith("b:"), "the order stays"


# ------------------------------------------------------------------------------------------------ layers and overrides


@pytest.mark.parametrize(
    ("base", "over", "wanted"),
    [
        ({"a": {"x": 1, "y": 1}}, {"a": {"y": 2}, "b": 3}, {"a": {"x": 1, "y": 2}, "b": 3}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ],
)
def test_merge_goes_key_by_key(base, over, wanted):
    assert merge(base, over) == wanted


ROPE = {"type": "rope", "theta": 1.0, "scaling": None}
BY_KIND = {"local": {"type": "rope"}, "global": {"type": "nope"}}


@pytest.mark.parametrize(
    ("base", "over", "wanted"),
    [
        (ROPE, {"type": "alibi"}, {"type": "alibi"}),
        (ROPE, {"type": "rope", "theta": 2.0}, {**ROPE, "theta": 2.0}),
        (ROPE, {"theta": 2.0}, {**ROPE, "theta": 2.0}),
        (ROPE, {"scaling": {"type": "yarn"}}, {**ROPE, "scaling": {"type": "yarn"}}),
        ({"type": "rope"}, {"scaling": {"type": "yarn"}}, {"type": "rope", "scaling": {"type": "yarn"}}),
        ({"type": "rope"}, {"layout": "interleaved"}, {"type": "rope", "layout": "interleaved"}),
        (ROPE, BY_KIND, BY_KIND),
        (ROPE, {"local": "rope", "global": "nope"}, {"local": "rope", "global": "nope"}),
        (BY_KIND, {"type": "alibi"}, {"type": "alibi"}),
        (BY_KIND, "alibi", "alibi"),
        (BY_KIND, {"local": {"theta": 9.0}}, {**BY_KIND, "local": {"type": "rope", "theta": 9.0}}),
        ({"scaling": {"type": "yarn"}}, {"type": "rope"}, {"type": "rope", "scaling": {"type": "yarn"}}),
        (ROPE, {}, ROPE),
    ],
)
def test_merge_of_variants(base, over, wanted):
    """Another type replaces, the same merges; a mapping by layer kind is not one more field of the variant below."""
    assert merge({"position": base}, {"position": over}) == {"position": wanted}


def test_a_misspelt_field_is_no_layer_kind():
    merged = merge({"position": ROPE}, {"position": {"scalng": {"type": "yarn"}}})
    refused(merged["position"], "p.scalng: no such key; did you mean 'scaling'?", kind=PositionConfig, path="p")


def test_merge_changes_neither_side():
    base, over = {"a": {"x": 1}}, {"a": {"y": 2}}
    assert merge(base, over) == {"a": {"x": 1, "y": 2}}
    assert (base, over) == ({"a": {"x": 1}}, {"a": {"y": 2}})


def test_overrides_are_paths_with_yaml_values():
    pairs = parse_overrides(["train.steps=5", "a.b={type: rope}", "c=", "d=x=y", "e=1e-3", "f=[1, 2]"])
    assert pairs == [
        ("train.steps", 5),
        ("a.b", {"type": "rope"}),
        ("c", None),
        ("d", "x=y"),
        ("e", 0.001),
        ("f", [1, 2]),
    ]


@pytest.mark.parametrize("wrong", ["train.steps", "=5", "train..steps=5", ".steps=5", "steps.=5"])
def test_an_override_that_is_no_assignment(wrong):
    with pytest.raises(ConfigError, match=r"expected PATH=VALUE, such as train\.steps=500"):
        parse_overrides([wrong])


def test_an_override_whose_value_is_no_yaml():
    with pytest.raises(ConfigError, match=r"--set model\.width: not valid YAML"):
        parse_overrides(["model.width=[1"])


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["model.position.type=rope", "model.position.scaling.type=yarn"], RopeConfig(scaling=YarnConfig())),
        (["model.position=rope", "model.position.scaling=yarn"], RopeConfig(scaling=YarnConfig())),
        (
            ["model.position=rope", "model.position.scaling=yarn", "model.position.scaling.factor=8"],
            RopeConfig(scaling=YarnConfig(factor=8.0)),
        ),
        (
            ["model.position.type=alibi", "model.position.type=rope", "model.position.scaling=linear"],
            RopeConfig(scaling=LinearConfig()),
        ),
        (["model.position.scaling.type=yarn", "model.position.scaling=null"], RopeConfig()),
        (["model.position={type: rope, theta: 7}"], RopeConfig(theta=7.0)),
    ],
)
def test_overrides_of_variants(overrides, wanted):
    assert load_config([], overrides).model.position == wanted


def test_overrides_of_variants_by_layer_kind():
    pattern = ["model.num_layers=2", "model.pattern=[local, global]"]
    for text in ("{local: {type: rope}, global: {type: nope}}", "{local: rope, global: nope}"):
        position = load_config([], [*pattern, f"model.position={text}"]).model.position
        assert position == {"local": RopeConfig(), "global": NopeConfig()}
        below = load_config([], [*pattern, f"model.position={text}", "model.position.local.theta=500"]).model.position
        assert below == {"local": RopeConfig(theta=500.0), "global": NopeConfig()}
        assert (
            load_config([], [*pattern, f"model.position={text}", "model.position=alibi"]).model.position
            == AlibiConfig()
        )


def test_another_type_may_not_drop_what_was_set():
    with pytest.raises(ConfigError, match=r"model.position.type=alibi drops model.position.theta, set before it"):
        load_config([], ["model.position.theta=500", "model.position.type=alibi"])
    same = load_config([], ["model.position.theta=500", "model.position.type=rope"])
    assert same.model.position == RopeConfig(theta=500.0)


def test_an_override_of_a_key_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"^train\.step: no such key; did you mean 'steps'\?"):
        load_config([], ["train.step=5"])
    with pytest.raises(ConfigError, match=r"^modle: no such key; did you mean 'model'\?"):
        load_config([], ["modle.width=5"])
    with pytest.raises(ConfigError, match=r"^seed: expected a whole number, got \{'x': 1\}"):
        load_config([], ["seed.x=1"])


def test_override_leaves_what_it_was_given():
    raw = {"position": "rope"}
    assert override(raw, [("position.theta", 5)]) == {"position": {"type": "rope", "theta": 5}}
    assert raw == {"position": "rope"}


# ----------------------------------------------------------------------------------------------------------------- hash


def everything(**changes):
    return Outer(**{"name": "x", "by_name": FrozenMapping({"a": Inner(1), "b": Inner(2)}), **changes})


CHANGES = {
    "name": "y",
    "count": 2,
    "rate": 0.25,
    "flag": True,
    "mode": "two",
    "maybe": 0.0,
    "sizes": (1,),
    "by_name": FrozenMapping({"a": Inner(1), "b": Inner(3)}),
    "either": 0,
    "text_or_list": ("a",),
    "inner": Inner(9),
    "anything": "z",
}


def test_the_hash_changes_with_every_field_but_the_unhashed():
    assert {field.name for field in dataclasses.fields(Outer)} == {*CHANGES, "silent"}
    hashes = [content_hash(everything(**{name: value})) for name, value in CHANGES.items()]
    assert len({content_hash(everything()), *hashes}) == len(CHANGES) + 1
    assert content_hash(everything(silent=99)) == content_hash(everything())
    assert encode(everything(silent=99))["silent"] == 99, "but it is written"


def test_the_hash_ignores_the_order_of_keys():
    other = everything(by_name=FrozenMapping({"b": Inner(2), "a": Inner(1)}))
    assert content_hash(other) == content_hash(everything())
    assert content_hash(other, 16)[:8] == content_hash(other, 8)
    assert len(content_hash(other)) == 8


def test_a_float_that_is_whole_hashes_as_the_float():
    """`theta: 500` and `theta: 500.0` are one run."""
    one, other = (decode(PositionConfig, {"type": "rope", "theta": theta}) for theta in (500, 500.0))
    assert content_hash(one) == content_hash(other)


def test_the_hash_of_a_run_ignores_how_it_is_watched():
    base = load_config()
    quiet = ["train.log_every=7", "train.validate_every=9", "train.tensorboard=false", "train.checkpoint_every=11"]
    watched = ["train.trackers=[wandb, {type: trackio, project: p}]", "train.layer_statistics=true"]
    assert load_config([], [*quiet, *watched, "train.profile_steps=[2, 3]"]).hash == base.hash
    for changed in ("seed=1", "threads=2", "train.steps=999", "data.sequence_length=64", "model.width=64"):
        assert load_config([], [changed]).hash != base.hash


def test_the_hash_is_the_same_in_every_process():
    code = (
        "from jaxgpt.config import content_hash, decode; from jaxgpt.data.dataset import DataConfig;"
        "raw = {'type': 'text', 'tokenizer': 'byte', 'corpus': {'type': 'text', 'path': ['b', 'a']}};"
        "print(content_hash(decode(DataConfig, raw), 64))"
    )
    raw = {"corpus": {"path": ["b", "a"], "type": "text"}, "tokenizer": "byte", "type": "text"}
    here = content_hash(decode(DataConfig, raw), 64)
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_an_encoded_run_is_plain_data():
    raw = encode(RunConfig())
    assert json.loads(json.dumps(raw)) == raw
    assert decode(RunConfig, raw) == RunConfig()


# ------------------------------------------------------------------------------------------------------- FrozenMapping


def test_a_frozen_mapping_is_equal_and_hashed_by_its_items():
    one, other = FrozenMapping({"a": 1, "b": 2}), FrozenMapping([("b", 2), ("a", 1)])
    assert one == other == {"a": 1, "b": 2}
    assert hash(one) == hash(other)
    assert one != FrozenMapping({"a": 1, "b": 3})
    assert (len(one), list(one), one["b"]) == (2, ["a", "b"], 2)
    assert repr(one) == "FrozenMapping({'a': 1, 'b': 2})"


def test_a_frozen_mapping_does_not_change():
    source = {"a": 1}
    mapping = FrozenMapping(source)
    source["a"] = 2
    assert mapping["a"] == 1
    with pytest.raises(TypeError):
        mapping["a"] = 3  # type: ignore[index]
