"""Which tensors of a checkpoint stand for which parameters, layer by layer."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgpt.convert.layouts import LINEAR, SAME, Layout, Shape
from jaxgpt.convert.settings import ConversionError
from jaxgpt.models.stack import Order

Names = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Parameters of ours, tensors of theirs, and how the one becomes the other.

    ours: paths. Those that do not begin with `/` are of a block, and hold for every layer whose block has them.
    theirs: names; `{layer}` is the layer's number, and `{item}` runs over the first dimension of the one of ours.
    layout: from `layouts`.
    """

    ours: Names
    theirs: Names
    layout: Layout

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    def names(self, layer: int, items: int) -> list[str]:
        """The names of theirs for one layer."""
        patterns = (self.theirs,) if isinstance(self.theirs, str) else self.theirs
        counts = [range(items) if "{item}" in pattern else [0] for pattern in patterns]
        return [p.format(layer=layer, item=i) for p, many in zip(patterns, counts, strict=True) for i in many]


def linear(ours: Names, theirs: str, layout: Layout = LINEAR, bias: Layout = SAME) -> tuple[Rule, Rule]:
    """A linear map (or several in one) and its bias, where there is one."""
    biases = f"{ours}_bias" if isinstance(ours, str) else tuple(f"{one}_bias" for one in ours)
    return Rule(ours, f"{theirs}.weight", layout), Rule(biases, f"{theirs}.bias", bias)


def norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
    """A norm's gain and its bias, where there is one."""
    return Rule(f"{ours}/scale", f"{theirs}.weight", SAME), Rule(f"{ours}/bias", f"{theirs}.bias", SAME)


@dataclasses.dataclass(frozen=True)
class Piece:
    """One use of a rule: names of theirs, and for each of ours its path, its place in the stack (None: all of it) and
    its shape there."""

    rule: Rule
    theirs: list[str]
    ours: list[tuple[str, int | None, Shape]]

    @property
    def our_shapes(self) -> list[Shape]:
        return [shape for _, _, shape in self.ours]

    @property
    def their_shapes(self) -> list[Shape]:
        return [tuple(shape) for shape in self.rule.layout.shapes(self.our_shapes)]


def pieces(rules: Sequence[Rule], order: Order, parameters: Mapping[str, Any]) -> Iterator[Piece]:
    """Every use of the rules for a model with these `parameters` (path -> array or shape), each parameter once.

    Raises AssertionError where a parameter has no rule: a fault of the family's table.
    """
    covered: set[str] = set()
    places = [(number, order.path(kind), order.place(number)) for number, kind in enumerate(order.kinds)]
    for rule in rules:
        whole = rule.paths[0].startswith("/")
        for layer, stack, place in [(0, "", None)] if whole else places:
            paths = [f"{stack}/{path}".removeprefix("//") for path in rule.paths]
            if paths[0] not in parameters:
                continue
            covered.update(paths)
            shapes = [tuple(parameters[path].shape)[0 if whole else 1 :] for path in paths]
            items = shapes[0][0] if shapes[0] else 0
            yield Piece(rule, rule.names(layer, items), [(p, place, s) for p, s in zip(paths, shapes, strict=True)])
    assert covered == set(parameters), sorted(set(parameters) - covered)


def check(wanted: Sequence[Piece], found: Mapping[str, Any], ignored: Sequence[str], place: str) -> None:
    """Raise ConversionError with all missing, unexpected and misshapen tensors unless `found` (name -> shape) is what
    the model needs. Names that match `ignored` hold nothing of their own."""
    shapes = {name: shape for piece in wanted for name, shape in zip(piece.theirs, piece.their_shapes, strict=True)}
    missing = [f"{name} {list(shape)}" for name, shape in shapes.items() if name not in found]
    unexpected = [
        f"{name} {list(shape)}"
        for name, shape in found.items()
        if name not in shapes and not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)
    ]
    misshapen = [
        f"{name} is {list(found[name])}, should be {list(shape)}"
        for name, shape in shapes.items()
        if name in found and tuple(found[name]) != shape
    ]
    complaints = [
        f"  {title}: " + "; ".join(names)
        for title, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if complaints:
        raise ConversionError(
            f"{place}: the tensors do not fit the model that its config.json describes\n" + "\n".join(complaints)
        )


def to_theirs(piece: Piece, parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name -> tensor of one piece."""
    ours = [np.asarray(parameters[path] if place is None else parameters[path][place]) for path, place, _ in piece.ours]
    return dict(zip(piece.theirs, piece.rule.layout.write(ours), strict=True))
