import numpy as np
import pytest

from jaxgpt.config import content_hash
from jaxgpt.errors import CheckpointError
from jaxgpt.train.surgery import Cut, StartConfig, describe, transplant


def arrays(**shapes):
    """A parameter of ones for each name, `__` for `/`."""
    return {name.replace("__", "/"): np.ones(shape, np.float32) for name, shape in shapes.items()}


def zeros(old):
    return {name: 0 * array for name, array in old.items()}


def test_what_agrees_is_kept():
    model, cuts = transplant(arrays(a=(2, 3), b=()), zeros(arrays(b=(), a=(2, 3))), StartConfig("x"), "old")
    assert all((value == 1).all() for value in model.values())
    assert cuts == [Cut("a", "kept", "float32[2, 3]"), Cut("b", "kept", "float32[]")]


def test_rules_explain_what_differs():
    old = arrays(same=(2,), position__table=(2, 3), blocks__bias=(4,), head=(3, 5))
    new = zeros(arrays(same=(2,), position__table=(4, 3), gate__a=(1,), gate__b=(1,), head=(3, 7)))
    rules = StartConfig("x", add=("gate/*", "head"), drop=("*bias", "head"), grow=("position/table",))
    model, cuts = transplant(old, new, rules, "old")
    assert np.asarray(model["position/table"]).tolist() == [[1, 1, 1]] * 2 + [[0, 0, 0]] * 2
    assert (model["same"] == 1).all()
    assert (model["head"] == 0).all()
    assert model.keys() == new.keys()
    assert {cut.name: (cut.action, cut.how) for cut in cuts} == {
        "blocks/bias": ("dropped", ""),
        "gate/a": ("added", "drawn anew"),
        "gate/b": ("added", "drawn anew"),
        "head": ("changed", "drawn anew, was float32[3, 5]"),
        "position/table": ("changed", "had 2 rows, 2 drawn anew behind them"),
        "same": ("kept", ""),
    }
    text = describe(cuts, "there").splitlines()
    assert text[0] == "weights of there: 1 kept, 2 changed, 2 added, 1 dropped"
    assert text[2] == "  added    gate/a          float32[1]  drawn anew"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (arrays(a=(2,), b=(1,)), arrays(a=(2,)), r"old: b has no place in this model; start.drop=\[b\] leaves it out"),
        (arrays(a=(2,)), arrays(a=(2,), b=(1,)), r"old: b is not among these weights; start.add=\[b\] draws it anew"),
        (
            arrays(a=(2, 3)),
            arrays(a=(4, 3)),
            r"a is float32\[2, 3\], this model has float32\[4, 3\]; start.grow=\[a\] keeps its 2 rows",
        ),
        (arrays(a=(4, 3)), arrays(a=(2, 3)), r"match its shape, or start.add=\[a\] with start.drop=\[a\]"),
        (arrays(a=(2,)), {"a": np.zeros(2, np.int32)}, r"a is float32\[2\], this model has int32\[2\]; match"),
        (arrays(a=(1,), b=(1,), c=(1,)), arrays(), r"a has no place .* \(and 2 more parameters differ\)"),
    ],
)
def test_what_no_rule_explains_is_an_error(old, new, message):
    with pytest.raises(CheckpointError, match=message):
        transplant(old, zeros(new), StartConfig("x"), "old")


def test_where_the_weights_lie_is_not_hashed():
    assert content_hash(StartConfig("x", "here")) == content_hash(StartConfig("x", "there"))
    assert content_hash(StartConfig("x")) != content_hash(StartConfig("y"))
    assert content_hash(StartConfig("x")) != content_hash(StartConfig("x", grow=("a",)))
