"""Slots and kinds: found by walking, refused where two are one, listed for people."""

import dataclasses
import re
import sys

import pytest

from jaxgpt import registry
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.registry import describe, kind_of, kinds, lookup, main, register, slot_of, slots

BASE = '''
import dataclasses
from jaxgpt.registry import slot

@slot("colour", package="{package}")
@dataclasses.dataclass(frozen=True)
class ColourConfig:
    """What a thing looks like."""
    depth: int = 1
'''
KIND = '''
import dataclasses
from {package}.base import ColourConfig
from jaxgpt.registry import register

@register("{kind}")
@dataclasses.dataclass(frozen=True)
class {name}Config(ColourConfig):
    """{name}, said in a line.

    And more."""
    shade: str = "dark"
'''


@pytest.fixture
def colours(tmp_path, monkeypatch, request):
    """A package of its own with a slot and kinds in two files, one of them in a folder below."""
    package = f"colours_{request.node.name.split('[')[0]}"
    root = tmp_path / package
    (root / "deep").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "deep" / "__init__.py").write_text("")
    (root / "base.py").write_text(BASE.format(package=package))
    (root / "red.py").write_text(KIND.format(package=package, kind="red", name="Red"))
    (root / "deep" / "blue.py").write_text(KIND.format(package=package, kind="blue", name="Blue"))
    (root / "__main__.py").write_text("raise SystemExit('never imported by walking')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_SLOTS", dict(registry._SLOTS))
    yield root
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def base_of(root):
    return __import__(f"{root.name}.base", fromlist=["base"]).ColourConfig


def test_kinds_are_found_by_walking_the_package(colours):
    base = base_of(colours)
    assert list(kinds(base)) == ["blue", "red"]
    red = lookup(base, "red", "colour")
    assert red.__name__ == "RedConfig"
    assert kind_of(red()) == "red"
    assert slot_of(red) is slot_of(base) is not None


def test_a_kind_of_two_files_is_refused(colours):
    (colours / "wine.py").write_text(KIND.format(package=colours.name, kind="red", name="Wine"))
    with pytest.raises(TypeError, match=r"colour 'red' is both .*red\.RedConfig and .*wine\.WineConfig"):
        kinds(base_of(colours))


def test_registering_again_under_the_same_name_is_no_conflict():
    """What a reload does: the class is made again by the same file."""
    again = type("RopeConfig", (RopeConfig,), {"__module__": RopeConfig.__module__, "__qualname__": "RopeConfig"})
    slot = slot_of(PositionConfig)
    assert slot is not None
    before = kinds(PositionConfig)["rope"]
    try:
        register("rope")(dataclasses.dataclass(frozen=True)(again))
        assert kinds(PositionConfig)["rope"] is again
    finally:
        slot.kinds["rope"] = before


def test_what_is_no_variant_cannot_be_registered():
    with pytest.raises(TypeError, match="put @register above @dataclass"):
        register("mine")(type("Mine", (PositionConfig,), {}))
    with pytest.raises(TypeError, match="extends no slot's base class"):
        register("mine")(dataclasses.make_dataclass("Mine", [], frozen=True))
    with pytest.raises(TypeError, match="'rope' is both"):
        register("rope")(dataclasses.make_dataclass("Mine", [], bases=(PositionConfig,), frozen=True))
    assert "mine" not in kinds(PositionConfig)


def test_what_belongs_to_no_slot():
    assert slot_of(int) is None
    with pytest.raises(TypeError, match="int is not the base of a slot"):
        kinds(int)
    with pytest.raises(TypeError, match="Mine is not registered"):
        kind_of(dataclasses.make_dataclass("Mine", [], bases=(PositionConfig,), frozen=True)())


@pytest.mark.parametrize("kind", ["ropee", None, 3, ["rope"]])
def test_an_unknown_kind_is_named_with_what_exists(kind):
    with pytest.raises(ConfigError, match=r"^here: no position is called .*there are: alibi, .*nope, .*rope, "):
        lookup(PositionConfig, kind, "here")


def test_every_slot_is_found_and_every_kind_has_a_line_of_documentation():
    found = slots()
    assert set(found) >= {
        "corpus", "feedforward", "mixer", "model", "norm", "optimizer", "position", "protocol", "scaling", "schedule",
        "tokenizer",
    }  # fmt: skip
    assert {id(where) for where in registry.found()} == {id(where) for where in found.values()}
    for where in found.values():
        assert where.kinds, where.name
        for config_class in (where.base, *where.kinds.values()):
            own = config_class.__doc__ or ""
            assert own.strip(), config_class
            assert not own.startswith(f"{config_class.__name__}("), f"{config_class}: only the dataclass's own"


def test_listing_of_all_slots_of_one_and_of_a_kind():
    everything = describe()
    assert "position: How a model knows where its tokens are." in everything
    assert re.search(r"^    alibi, .*nope, .*rope, .*t5, ", everything, re.MULTILINE)
    lines = describe("position").splitlines()
    assert [line.split()[0] for line in lines] == list(kinds(PositionConfig))
    assert any(line.startswith("rope             Rotary position embedding") for line in lines)
    one = describe("position", "rope")
    assert one.startswith("position rope (jaxgpt.nn.position.rotary)\nRotary position embedding (Su et al. 2021")
    assert "    theta: float = 10000.0" in one
    assert "    scaling: ScalingConfig | None = None" in one
    assert "(required)" in describe("corpus", "text")


def test_listing_of_types_and_defaults_that_are_no_text(colours):
    (colours / "red.py").write_text(
        KIND.format(package=colours.name, kind="red", name="Red").replace(
            'shade: str = "dark"', "shade: tuple = dataclasses.field(default_factory=lambda: (1, 2))"
        )
    )
    base_of(colours)
    assert "    shade: tuple = (1, 2)" in describe("colour", "red")


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        ([], 0, "position: How a model", ""),
        (["position"], 0, "rope", ""),
        (["position", "rope"], 0, "theta: float", ""),
        (["positon"], 2, "", "no slot is called 'positon'; did you mean 'position'?"),
        (["position", "ropee"], 2, "", "position: no position is called 'ropee'; did you mean 'rope'?"),
    ],
)
def test_command_line(capsys, arguments, code, out, err):
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert out in printed.out
    assert err in printed.err
    assert printed.err.count("\n") == bool(err)
