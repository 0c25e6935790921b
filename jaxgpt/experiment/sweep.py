"""Sweeps as data: what an ablation tries, as pure functions that combine.

A sweep is a function from overrides to a list of overrides, mappings of dotted paths to values: it adds its settings to
those it is given, in as many ways as it has. So sweeps combine, and a later one sees what earlier ones chose:

    def variants() -> list[Variant]:
        positions = axis("model.position.type", ["rope", "alibi"])
        bases = axis("model.position.theta", [1e4, 1e6])
        return variants_of(grid(positions, when(lambda it: it["model.position.type"] == "rope", bases)))

has three variants, `rope-theta=10000`, `rope-theta=1e+06` and `alibi`. A value may be a function of the value that lies
below it, such as `times(2)`.

Seeds are an axis that every sweep has: the scale or `--seeds` says how many, all variants have the same, and
`--where seed<2` selects some of them. A sweep cannot set them.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxgpt.config import override
from jaxgpt.errors import ConfigError
from jaxgpt.experiment.spec import Variant
from jaxgpt.files import short_name

Overrides = Mapping[str, Any]
Sweep = Callable[[Overrides], list[Overrides]]
Distribution = Callable[[float], Any]
"""A draw from [0, 1) as a value."""

_ABSENT = object()


# ---------------------------------------------------------------------------------------------------------- combinators


def axis(path: str, values: Iterable[Any]) -> Sweep:
    """One setting, which takes each of some values in turn. `path` is dotted, such as `model.width`.

    Raises ConfigError for a path that no variant can set and for no values; when it is applied, where the path or
    something below it is set already.
    """
    if not all(path.split(".")):
        raise ConfigError(f"axis {path!r}: expected a dotted path, such as model.width")
    if path.partition(".")[0] == "seed":
        raise ConfigError("axis seed: every variant has the same seeds; choose with --seeds N or --where 'seed<2'")
    if isinstance(values, str | Mapping):
        raise ConfigError(f"axis {path}: expected a list of values, got {values!r}")
    each = tuple(values)
    if not each:
        raise ConfigError(f"axis {path}: has no values; give at least one")
    return lambda overrides: [_with(overrides, path, value) for value in each]


def grid(*sweeps: Sweep) -> Sweep:
    """Every combination of some sweeps, the last one changing fastest. Without any it leaves things as they are."""

    def product(overrides: Overrides) -> list[Overrides]:
        found = [overrides]
        for sweep in sweeps:
            found = [new for old in found for new in sweep(old)]
        return found

    return product


def zipped(*sweeps: Sweep) -> Sweep:
    """The first of every sweep together, then the second, and so on. Raises ConfigError for unequal lengths."""

    def together(overrides: Overrides) -> list[Overrides]:
        columns = [sweep(overrides) for sweep in sweeps]
        lengths = [len(column) for column in columns]
        if len(set(lengths)) > 1:
            raise ConfigError(f"zipped: sweeps of {', '.join(map(str, lengths))} settings; make them equally long")
        found = []
        for row in zip(*columns, strict=True):
            new = overrides
            for one in row:
                for path in [path for path in one if path not in overrides]:
                    new = _with(new, path, one[path])
            found.append(new)
        return found

    return together


def chain(*sweeps: Sweep) -> Sweep:
    """One sweep after the other."""
    return lambda overrides: [new for sweep in sweeps for new in sweep(overrides)]


def when(condition: Callable[[Overrides], bool], sweep: Sweep, otherwise: Sweep | None = None) -> Sweep:
    """A sweep of those overrides alone of which `condition` holds; the others are swept by `otherwise`, or stay.

    Raises ConfigError, when it is applied, where the condition asks for a path that nothing before it has set.
    """

    def branch(overrides: Overrides) -> list[Overrides]:
        try:
            holds = condition(overrides)
        except KeyError as error:
            there = ", ".join(overrides) or "nothing"
            raise ConfigError(
                f"when: the condition asks for {error}, and before it {there} is set; put it behind that axis in a "
                "grid, or ask with .get()"
            ) from None
        if holds:
            return sweep(overrides)
        return [overrides] if otherwise is None else otherwise(overrides)

    return branch


def _with(overrides: Overrides, path: str, value: Any) -> Overrides:
    for before in overrides:
        if before == path or before.startswith(f"{path}."):
            raise ConfigError(f"axis {path}: {before} is set already, to {overrides[before]!r}; leave one of them out")
    return {**overrides, path: value}


# -------------------------------------------------------------------------------------------------------- random search


def sample(n: int, space: Mapping[str, Sequence[Any] | Distribution], seed: int = 0) -> Sweep:
    """Random search (Bergstra and Bengio 2012, JMLR 13): `n` different draws from a space that maps paths to lists of
    values or to distributions.

    The same seed draws the same on every machine, more draws begin with those of fewer, and another path in the space
    changes no draws of the others (unless a draw came twice and was left out).

    Raises ConfigError where the space has no `n` different draws.
    """
    if n < 1 or not space:
        raise ConfigError(f"sample: expected 1 draw or more of one path or more, got {n} of {len(space)}")
    each = {path: one if callable(one) else _one_of(path, one) for path, one in space.items()}
    # random() is the one part of `random` that Python promises to keep as it is
    streams = {path: random.Random(f"{seed} {path}") for path in each}
    draws: dict[str, dict[str, Any]] = {}
    for _ in range(100 * n + 1000):
        draw = {path: value_at(streams[path].random()) for path, value_at in each.items()}
        draws.setdefault(repr(draw), draw)
        if len(draws) == n:
            return zipped(*(axis(path, [one[path] for one in draws.values()]) for path in each))
    raise ConfigError(f"sample: there are {len(draws)} different draws, and {n} are wanted; ask for fewer")


def uniform(low: float, high: float) -> Distribution:
    """A number between two, to four digits."""
    _check_range("uniform", low, high)
    return lambda draw: _rounded(low + (high - low) * draw, low, high)


def log_uniform(low: float, high: float) -> Distribution:
    """A number between two positive ones whose logarithm is uniform, to four digits."""
    _check_range("log_uniform", low, high)
    if low <= 0:
        raise ConfigError(f"log_uniform({low:g}, {high:g}): both must be positive")
    return lambda draw: _rounded(math.exp(math.log(low) + (math.log(high) - math.log(low)) * draw), low, high)


def integers(low: int, high: int) -> Distribution:
    """A whole number from `low` to `high`, both included."""
    _check_range("integers", low, high)
    if low != int(low) or high != int(high):
        raise ConfigError(f"integers({low:g}, {high:g}): both must be whole numbers")
    return lambda draw: int(low) + int((int(high) - int(low) + 1) * draw)


def _check_range(name: str, low: float, high: float) -> None:
    if not low < high:
        raise ConfigError(f"{name}({low:g}, {high:g}): the first must be less than the second")


def _rounded(value: float, low: float, high: float) -> float:
    """Four digits: names stay short, and the last bit of a machine's exp() changes nothing."""
    return float(min(max(float(f"{value:.4g}"), low), high))


def _one_of(path: str, values: Sequence[Any]) -> Distribution:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(f"sample: {path}: expected a list of values or a distribution, got {values!r}")
    return lambda draw: values[int(len(values) * draw)]


# ------------------------------------------------------------------------------------------------------------- variants


def variants_of(
    sweep: Sweep,
    *,
    shared: Overrides | None = None,
    prefix: str = "",
    parent: str | None = None,
    group: str = "",
    panel: str = "",
) -> list[Variant]:
    """The variants of a sweep, named after what tells them apart: `rope-width=64`. Kinds and other texts stand for
    themselves, other values behind the last part of their path, or more of it where two would be called the same.

    Args:
      shared: overrides of them all, which no name mentions.
      prefix: what all names begin with, such as `small-`.
      parent, group, panel: theirs, as a `Variant` has them.

    Every variant knows the paths that were set as its axes, so a difference in anything else can be pointed out.

    Raises ConfigError where the sweep is empty or has the same settings twice.
    """
    found = sweep({} if shared is None else dict(shared))
    if not found:
        raise ConfigError("variants_of: the sweep is empty; give it at least one setting")
    seen: set[str] = set()
    for one in found:
        key = repr(sorted(one.items(), key=lambda item: item[0]))
        if key in seen:
            settings = ", ".join(f"{path}={_text(value)}" for path, value in one.items()) or "nothing set"
            raise ConfigError(f"variants_of: the sweep has the same settings twice: {settings}")
        seen.add(key)
    axes = tuple(dict.fromkeys(path for one in found for path in one))
    pieces = _pieces(found, [path for path in axes if len({repr(one.get(path, _ABSENT)) for one in found}) > 1])
    names = _unique([_valid(prefix + ("-".join(map("=".join, piece)) or "base")) for piece in pieces])
    labels = [_label(prefix, piece) for piece in pieces]
    return [
        Variant(
            name,
            override({}, one.items()),
            parent,
            label=label if labels.count(label) == 1 else name,
            group=group,
            panel=panel,
            axes=axes,
        )
        for name, label, one in zip(names, labels, found, strict=True)
    ]


Piece = tuple[str, ...]
"""A value in words, behind the name of its axis where it needs one."""


def _pieces(found: Sequence[Overrides], varied: Sequence[str]) -> list[list[Piece]]:
    """For every set of overrides the parts of its name."""
    values = {path: {repr(one[path]): one[path] for one in found if path in one} for path in varied}
    texts = {path: dict(zip(each, _texts(list(each.values())), strict=True)) for path, each in values.items()}
    alone = {
        path: {texts[path][key] for key, value in each.items() if _stands_alone(value)} for path, each in values.items()
    }
    short = _short_names(varied)
    named = {path for path in varied if any(alone[path] & alone[other] for other in varied if other != path)}
    return [
        [
            (texts[path][repr(one[path])],)
            if _stands_alone(one[path]) and path not in named
            else (short[path], texts[path][repr(one[path])])
            for path in varied
            if path in one
        ]
        for one in found
    ]


def _stands_alone(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and "type" in value)


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Path -> its last part, or as many as no other path ends with; a kind is called by what it is a kind of."""
    parts = {path: path.removesuffix(".type").split(".") for path in paths}
    ends = {path: [".".join(own[-n:]) for n in range(1, len(own) + 1)] for path, own in parts.items()}
    return {
        path: next((end for end in own if not any(end in ends[other] for other in paths if other != path)), path)
        for path, own in ends.items()
    }


def _texts(values: Sequence[Any]) -> list[str]:
    """The values of an axis in words; mappings by their kind and what tells them from others of that kind."""
    all_leaves = [_leaves({"type": one} if isinstance(one, str) else one) for one in values]
    texts = []
    for value, own in zip(values, all_leaves, strict=True):
        if not isinstance(value, Mapping):
            texts.append(_text(value))
            continue
        alike = [other for other in all_leaves if other.get("type") == own.get("type")]
        kind = [own["type"]] if "type" in own else []
        rest = [key for key in own if key != "type"]
        telling = [key for key in rest if any(repr(other.get(key, _ABSENT)) != repr(own[key]) for other in alike)]
        short = _short_names(telling)
        more = [_text(own[key]) if _stands_alone(own[key]) else f"{short[key]}={_text(own[key])}" for key in telling]
        texts.append("-".join([*kind, *more]) or "none")
    return texts


def _leaves(raw: Any, above: str = "") -> dict[str, Any]:
    """Dotted path -> value of everything in a mapping that is none itself; nothing where `raw` is no mapping."""
    found: dict[str, Any] = {}
    if not isinstance(raw, Mapping):
        return found
    for key, value in raw.items():
        found |= _leaves(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def _text(value: Any) -> str:
    """A value in words: `0.001`, `true`, `none`, `local+global`, `2x` (`times(2)`)."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list | tuple):
        return "+".join(map(_text, value)) or "none"
    return getattr(value, "__name__", "function").strip("<>") if callable(value) else str(value)


def _label(prefix: str, piece: Sequence[Piece]) -> str:
    """A name for people: `small, rope, learning rate 0.001`."""
    words = [" ".join([*(name.replace("_", " ") for name in names), text]) for *names, text in piece]
    return ", ".join(filter(None, [prefix.strip("-_ "), *words]))


def _valid(name: str) -> str:
    """The name with what variants cannot be called replaced; one too long for a folder ends in a digest of it."""
    valid = re.sub(r"[^A-Za-z0-9_.+=-]+", "-", name).strip("-") or "base"
    return short_name(valid if valid[0].isalnum() else f"v{valid}", name)


def _unique(names: Sequence[str]) -> list[str]:
    """The names; of those that are equal all but the first are numbered."""
    found: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        found[name if name not in found else next(one for one in numbered if one not in found)] = None
    return list(found)
