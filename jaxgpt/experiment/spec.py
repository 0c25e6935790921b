"""What an experiment is: a base configuration, variants of it, and claims about them.

An experiment is one file, `experiments/NAME.py`, that defines

    base() -> dict              a partial run configuration
    variants() -> list[Variant]
    claims() -> list            statements with an acceptance rule fixed before the run

and whose docstring's first line says what it asks. A *scale* is `configs/scale/NAME.yaml`: how large to run it.
Configurations are layered, lowest first: defaults, files they include, base, scale, variant, `--set`.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxgpt.config import merge, override, read_yaml
from jaxgpt.data.dataset import DataConfig
from jaxgpt.errors import ConfigError, nearest
from jaxgpt.registry import lookup

BASELINE = "5-gram"  # the variant name under which the n-gram baseline appears in results
SECTIONS = ("seed", "threads", "model", "data", "train", "evaluate")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
_FUNCTIONS = {"base", "variants", "claims"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One arm of a comparison: what it changes in the base configuration.

    With `parent` nothing is trained: the parent's weights are evaluated under these model overrides. A value may be a
    function of the value below it, such as `times(2)`, so that a variant says the same at every scale.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parent: str | None = None
    description: str = ""
    label: str = ""  # how figures and tables call it; the name where not given


def times(factor: float) -> Callable[[Any], Any]:
    """An override: `factor` times the number below; whole numbers stay whole, or it is a ConfigError."""

    def multiply(below: Any) -> Any:
        if isinstance(below, bool) or not isinstance(below, int | float):
            raise ConfigError(f"times({factor:g}) needs a number to multiply, and below it is {below!r}")
        value = below * factor
        if isinstance(below, int) and value != round(value):
            raise ConfigError(f"times({factor:g}) makes {value:g} of {below}, and a whole number is needed")
        return round(value) if isinstance(below, int) else value

    return multiply


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large an experiment runs: the number of seeds and a partial run configuration; `for_data` has more of both
    for experiments on one kind of data."""

    name: str
    seeds: int
    config: Mapping[str, Any]
    description: str = ""
    for_data: Mapping[str, Scale] = dataclasses.field(default_factory=dict)

    def on(self, kind: str) -> Scale:
        """This scale for data of a kind: what `for_data` has of it lies on top."""
        if kind not in self.for_data:
            return dataclasses.replace(self, for_data={})
        over = self.for_data[kind]
        return Scale(self.name, over.seeds, merge(self.config, over.config), self.description)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What `experiments/NAME.py` says."""

    name: str
    summary: str
    base: Mapping[str, Any]
    variants: tuple[Variant, ...]
    claims: tuple[Any, ...] = ()

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)


# ---------------------------------------------------------------------------------------------------------- experiments


def list_experiments(folder: Path) -> dict[str, str]:
    """Name -> first line of the docstring, for every experiment in `folder`. Reads the files without running them."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            found[path.stem] = "(not valid Python)"
            continue
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if defined >= _FUNCTIONS:
            found[path.stem] = (ast.get_docstring(tree) or "").split("\n", 1)[0]
    return found


def load_experiment(name: str, folder: Path) -> Experiment:
    """The experiment `folder/NAME.py`. An unknown name raises ConfigError with what exists and the nearest spelling."""
    existing = list_experiments(folder)
    if name not in existing:
        raise ConfigError(f"--exp: no experiment is called {name!r}{nearest(name, existing)}")
    module = _load_module(name, folder / f"{name}.py")
    variants = tuple(module.variants())
    experiment = Experiment(name, existing[name], module.base(), variants, tuple(module.claims()))
    check(experiment)
    return experiment


def _load_module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses defined in the file look themselves up here
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: not valid Python ({error.msg})") from None
    return module


def check(experiment: Experiment) -> None:
    """Raise ConfigError for an experiment that cannot be: repeated names, missing parents, sections out of place."""
    names = [variant.name for variant in experiment.variants]
    where = f"experiment {experiment.name}"
    if not names:
        raise ConfigError(f"{where}: variants() is empty; it needs at least one")
    for variant in experiment.variants:
        here = f"{where}, variant {variant.name!r}"
        if not _NAME.fullmatch(variant.name) or variant.name == BASELINE:
            raise ConfigError(f"{here}: the name must be letters, digits and _.+=-, and not {BASELINE!r}")
        if names.count(variant.name) > 1:
            raise ConfigError(f"{here}: the name is used twice")
        if variant.parent is not None:
            trained = [other.name for other in experiment.variants if other.parent is None]
            if variant.parent not in trained:
                raise ConfigError(
                    f"{here}: no trained variant is called {variant.parent!r}{nearest(variant.parent, trained)}"
                )
        allowed = ("model",) if variant.parent else ("model", "data", "train")
        for section in variant.overrides:
            if section not in allowed:
                why = "evaluates its parent's weights and " if variant.parent else ""
                raise ConfigError(f"{here}: {why}may override {', '.join(allowed)}, not {section!r}")


# --------------------------------------------------------------------------------------------------------------- scales


def list_scales(configs: Path) -> list[str]:
    """Names of the files in `configs/scale`."""
    return sorted(path.stem for path in (configs / "scale").glob("*.yaml"))


def load_scale(name: str, configs: Path) -> Scale:
    """The scale `configs/scale/NAME.yaml`: keys `seeds`, `config`, and optionally `description` and `for_data`, which
    has `config` and `seeds` (both optional) by kind of data."""
    existing = list_scales(configs)
    if name not in existing:
        raise ConfigError(f"--scale: no scale is called {name!r}{nearest(name, existing)}")
    path = configs / "scale" / f"{name}.yaml"
    raw = read_yaml(path)
    for_data = raw.pop("for_data", {})
    if not isinstance(for_data, Mapping):
        raise ConfigError(f"{path}: for_data: must be a mapping from kinds of data")
    scale = _scale(name, raw, {"description", "seeds", "config"}, str(path))
    parts = {}
    for kind, part in for_data.items():
        lookup(DataConfig, kind, f"{path}: for_data")
        defaults = {"seeds": scale.seeds, "config": {}}
        parts[kind] = _scale(name, {**defaults, **(part or {})}, set(defaults), f"{path}: for_data.{kind}")
    return dataclasses.replace(scale, for_data=parts)


def _scale(name: str, raw: Mapping[str, Any], known: set[str], where: str) -> Scale:
    for key in raw:
        if key not in known:
            raise ConfigError(f"{where}: {key}: no such key{nearest(str(key), known)}")
    config, seeds = raw.get("config"), raw.get("seeds")
    if not isinstance(config, Mapping):
        raise ConfigError(f"{where}: config: must be a mapping")
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ConfigError(f"{where}: seeds: expected a whole number, 1 or more, got {seeds!r}")
    return Scale(name, seeds, config, str(raw.get("description", "")))


# -------------------------------------------------------------------------------------------------------------- layers


def include(layer: Mapping[str, Any], configs: Path) -> dict[str, Any]:
    """A layer on top of the files its key `include` names, paths below `configs/`."""
    own = dict(layer)
    names = own.pop("include", [])
    below: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        below = merge(below, read_yaml(configs / name))
    return merge(below, own)


def data_kind(experiment: Experiment, variant: Variant, pairs: Sequence[tuple[str, Any]], configs: Path) -> str:
    """The kind of a variant's data, which decides what a scale and the evaluations are."""
    kind = "text"
    for layer in [include(experiment.base, configs), *_own(experiment, variant), override({}, pairs)]:
        data = layer.get("data", {})
        kind = data.get("type", kind) if isinstance(data, Mapping) else data
    return kind


def _own(experiment: Experiment, variant: Variant) -> list[Mapping[str, Any]]:
    """The layers of a variant, on its parent's."""
    parent = [] if variant.parent is None else [experiment.variant(variant.parent).overrides]
    return [*parent, variant.overrides]


def resolve(
    experiment: Experiment,
    scale: Scale,
    variant: Variant,
    pairs: Sequence[tuple[str, Any]],
    configs: Path,
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    """The run configuration of one variant, all layers merged on `defaults`; the variant's lie on its parent's.

    Raises ConfigError for a section that does not exist or is not a variant's to set.
    """
    layers = [include(experiment.base, configs), include(scale.config, configs)]
    raw = dict(defaults)
    for layer in [*layers, *_own(experiment, variant)]:
        known = _applied(layer, raw, f"experiment {experiment.name}, variant {variant.name!r}: ")
        raw = override(raw, known.items())  # unlike merge, goes below `position: rope`
    raw = override(raw, pairs)
    for section in raw:
        if section not in SECTIONS:
            raise ConfigError(f"{section}: no such key{nearest(str(section), SECTIONS)}")
    if "seed" in raw:
        raise ConfigError("seed: the plan sets it for each run; choose the number of seeds with --seeds")
    return raw


def _applied(layer: Mapping[str, Any], below: Any, path: str) -> dict[str, Any]:
    """A layer with the functions in it replaced by what they make of the values below. `path` begins a message."""
    known = {}
    for key, value in layer.items():
        under = below.get(key) if isinstance(below, Mapping) else None
        if callable(value):
            try:
                value = value(under)
            except ConfigError as error:
                raise ConfigError(f"{path}{key}: {error}") from None
        elif isinstance(value, Mapping):
            value = _applied(value, under, f"{path}{key}.")
        known[key] = value
    return known
