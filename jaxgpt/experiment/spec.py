"""What an experiment is: a base configuration, variants of it, and claims about them.

An experiment is one file, `experiments/NAME.py`, that defines

    base() -> dict              a partial run configuration
    variants() -> list[Variant]
    claims() -> list            statements with an acceptance rule fixed before the run
    tuning() -> Tuning | None   may be left out: how learning rates are chosen; by default they are not
    search() -> Search | None   may be left out: a search for settings instead (`jaxgpt.experiment.search`)
    match() -> str | None       may be left out: "parameters" or "flops", by which arms are made equally large
    axes() -> list[str]         may be left out: the settings that arms differ in, such as `model.position`; what else
                                they differ in is warned of. Variants made by a sweep bring their own

and whose docstring's first line says what it asks. `base()` may say `{"from": FOLDER}`, a checkpoint of transformers or
a run: then the model, its tokenizer and L are those of the folder, and every variant without a parent begins with its
weights. A *scale* is `configs/scale/NAME.yaml`: how large to run it.
Configurations are layered, lowest first: defaults, files they include, base, scale, variant, `--set`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
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
from jaxgpt.experiment.matching import MATCHES, Match
from jaxgpt.experiment.search import Search
from jaxgpt.registry import lookup

BASELINE = "5-gram"  # the variant name under which the n-gram baseline appears in results
SECTIONS = ("seed", "threads", "model", "data", "train", "evaluate")
_SETTABLE = ("model", "data", "train", "extend", "start")  # by variants; the last two where they begin with weights
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
_FUNCTIONS = ("base", "variants", "claims")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One arm of a comparison: what it changes in the base configuration.

    With `parent` it has the weights of that variant. If it says nothing of training they are evaluated as they are,
    under other model settings; if it overrides `train` or `data` they are trained further, seed by seed. The section
    `extend` (`{type: yarn, factor: 4}`) replaces the scaling of every rope, and `start` may hold rules of checkpoint
    surgery (`jaxgpt.train.surgery`) for training further. Where the base is a checkpoint, the same holds for variants
    without a parent: they have its weights.

    A value may be a function of the value below it, `--set` included, such as `times(2)` or `share(0.1)`, so that a
    variant says the same at every scale; below a parent's child lies what the parent has.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parent: str | None = None
    description: str = ""
    label: str = ""  # how figures and tables call it; the name where not given
    group: str = ""  # what it shares with variants of other training lengths, all measured at the first one's contexts
    panel: str = ""  # figures and tables of accuracy put the variants of a panel together, such as those of a task
    axes: tuple[str, ...] = ()  # the paths that it was made to differ from others in, where a sweep made it

    @property
    def trains(self) -> bool:
        """Whether it is trained: from the start, or from its parent's weights."""
        return self.parent is None or self.trains_further

    @property
    def trains_further(self) -> bool:
        """Whether it trains weights that it begins with, if it begins with any."""
        return bool({"train", "data"} & set(self.overrides))


@functools.cache
def times(factor: float) -> Callable[[Any], Any]:
    """An override: `factor` times the number below; whole numbers stay whole, or it is a ConfigError. The same factor
    makes the same function, called `2x` in the names of a sweep's variants."""

    def multiply(below: Any) -> Any:
        if isinstance(below, bool) or not isinstance(below, int | float):
            raise ConfigError(f"times({factor:g}) needs a number to multiply, and below it is {below!r}")
        value = below * factor
        if isinstance(below, int) and value != round(value):
            raise ConfigError(f"times({factor:g}) makes {value:g} of {below}, and a whole number is needed")
        return round(value) if isinstance(below, int) else value

    multiply.__name__ = f"{factor:g}x"
    return multiply


@functools.cache
def share(fraction: float) -> Callable[[Any], Any]:
    """An override: at most that share of the whole number below, such as the steps; at least 1. The same share makes
    the same function, called `share0.1` in the names of a sweep's variants."""

    def take(below: Any) -> Any:
        if isinstance(below, bool) or not isinstance(below, int):
            raise ConfigError(f"share({fraction:g}) needs a whole number to take part of, and below it is {below!r}")
        return max(1, int(below * fraction + 1e-6))  # the product may fall just short of a whole number

    take.__name__ = f"share{fraction:g}"
    return take


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large an experiment runs: the number of seeds and a partial run configuration; `for_data` has more of both
    for experiments on one kind of data. `tune`: whether settings are chosen where the experiment says how."""

    name: str
    seeds: int
    config: Mapping[str, Any]
    description: str = ""
    tune: bool = True
    for_data: Mapping[str, Scale] = dataclasses.field(default_factory=dict)

    def on(self, kind: str) -> Scale:
        """This scale for data of a kind: what `for_data` has of it lies on top."""
        if kind not in self.for_data:
            return dataclasses.replace(self, for_data={})
        over = self.for_data[kind]
        return dataclasses.replace(self, seeds=over.seeds, config=merge(self.config, over.config), for_data={})


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How every variant's learning rate is chosen before the comparison: each is trained at each rate for a part of the
    steps and scored at the training length, on text that neither trains those runs nor is in any evaluation.

    factors: the grid, as multiples of the learning rate that the variant would have.
    steps: share of the variant's steps that one trial takes.
    seeds: trials at each rate, with seeds of their own.
    fraction: share of the training documents that is held out for scoring; the comparison trains on them again.
    """

    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    steps: float = 0.25
    seeds: int = 1
    fraction: float = 0.1

    def __post_init__(self) -> None:
        if len(set(self.factors)) < 2 or min(self.factors) <= 0:
            raise ConfigError(f"tuning: factors must be two or more different positive numbers, got {self.factors}")
        if not (0 < self.steps <= 1 and 0 < self.fraction < 1 and self.seeds >= 1):
            raise ConfigError("tuning: steps and fraction are shares between 0 and 1, and seeds at least 1")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What `experiments/NAME.py` says."""

    name: str
    summary: str
    base: Mapping[str, Any]
    variants: tuple[Variant, ...]
    claims: tuple[Any, ...] = ()
    tuning: Tuning | None = None
    match: Match | None = None
    axes: tuple[str, ...] = ()  # dotted paths that arms differ in, each with all below it; empty where nobody says
    search: Search | None = None

    @property
    def folder(self) -> Path | None:
        """The checkpoint of transformers that the variants begin with, if they do."""
        given = self.base.get("from")
        if "from" in self.base and not (isinstance(given, (str, Path)) and str(given)):
            raise ConfigError(f"experiment {self.name}: base(): from: must be a folder, got {given!r}")
        return None if given is None else Path(given).expanduser()

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)

    def chain(self, variant: Variant) -> tuple[Variant, ...]:
        """The variant behind all whose weights it descends from, the one trained from the start first."""
        above = () if variant.parent is None else self.chain(self.variant(variant.parent))
        return (*above, variant)


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
        if not _lacking(tree):
            found[path.stem] = (ast.get_docstring(tree) or "").split("\n", 1)[0]
    return found


def _lacking(tree: ast.Module) -> list[str]:
    """What a file would have to define to be an experiment."""
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return [f"{name}()" for name in _FUNCTIONS if name not in defined]


def load_experiment(name: str, folder: Path) -> Experiment:
    """The experiment `folder/NAME.py`. Raises ConfigError for an unknown name, with what exists and the nearest
    spelling, and for a file that lacks a function."""
    existing, path = list_experiments(folder), folder / f"{name}.py"
    if name not in existing and path.is_file():
        lacking = ", ".join(_lacking(ast.parse(path.read_text(encoding="utf-8"))))
        raise ConfigError(f"--exp {name}: {path} does not define {lacking}, which every experiment has")
    if name not in existing:
        raise ConfigError(f"--exp: no experiment is called {name!r}{nearest(name, existing)}")
    module = _load_module(name, path)
    variants = tuple(module.variants())
    options = {name: getattr(module, name)() for name in ("tuning", "match", "search", "axes") if hasattr(module, name)}
    own = dict.fromkeys(path for variant in variants for path in variant.axes)
    options["axes"] = tuple(options.get("axes") or own)
    experiment = Experiment(name, existing[name], module.base(), variants, tuple(module.claims()), **options)
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
    if experiment.match not in (None, *MATCHES):
        raise ConfigError(f"{where}: match() must return None or one of {', '.join(MATCHES)}, not {experiment.match!r}")
    for axis in experiment.axes:
        if str(axis).partition(".")[0] not in _SETTABLE:
            raise ConfigError(f"{where}: axes(): {axis!r} is no path that a variant can set{nearest(axis, _SETTABLE)}")
    if not (experiment.search is None or isinstance(experiment.search, Search)):
        raise ConfigError(f"{where}: search() must return a Search or None, not {experiment.search!r}")
    if experiment.search and experiment.tuning:
        raise ConfigError(f"{where}: has tuning() and search(), which choose the same; leave one of them out")
    for name in experiment.search.variants if experiment.search else ():
        if name not in names:
            raise ConfigError(f"{where}: search(): no variant is called {name!r}{nearest(name, names)}")
    for variant in experiment.variants:
        here = f"{where}, variant {variant.name!r}"
        if not _NAME.fullmatch(variant.name) or variant.name == BASELINE:
            raise ConfigError(f"{here}: the name must be letters, digits and _.+=-, and not {BASELINE!r}")
        if names.count(variant.name) > 1:
            raise ConfigError(f"{here}: the name is used twice")
        if variant.parent is not None:
            trained = [other.name for other in experiment.variants if other.trains]
            if variant.parent not in trained:
                raise ConfigError(
                    f"{here}: no trained variant is called {variant.parent!r}{nearest(variant.parent, trained)}"
                )
        _check_sections(variant, here, experiment.folder is not None)
    for variant in experiment.variants:
        seen, above = [variant.name], variant.parent
        while above is not None:
            if above in seen:
                raise ConfigError(f"{where}, variant {variant.name!r}: is its own ancestor ({' <- '.join(seen)})")
            seen.append(above)
            above = experiment.variant(above).parent


def _check_sections(variant: Variant, here: str, given: bool) -> None:
    """`given`: whether even variants without a parent begin with weights."""
    allowed = [*_SETTABLE[:3]]
    if variant.parent is not None or given:
        allowed += ["extend", "start"] if variant.trains_further else ["extend"]
    for section in variant.overrides:
        if section not in allowed:
            raise ConfigError(f"{here}: may override {', '.join(allowed)}, not {section!r}")


# --------------------------------------------------------------------------------------------------------------- scales


def list_scales(configs: Path) -> list[str]:
    """Names of the files in `configs/scale`."""
    return sorted(path.stem for path in (configs / "scale").glob("*.yaml"))


def load_scale(name: str, configs: Path) -> Scale:
    """The scale `configs/scale/NAME.yaml`: keys `seeds`, `config`, and optionally `description`, `tune` and
    `for_data`, which has `config` and `seeds` (both optional) by kind of data; `include` names files it changes."""
    existing = list_scales(configs)
    if name not in existing:
        raise ConfigError(f"--scale: no scale is called {name!r}{nearest(name, existing)}")
    path = configs / "scale" / f"{name}.yaml"
    raw = read_yaml(path)
    for_data = raw.pop("for_data", {})
    if not isinstance(for_data, Mapping):
        raise ConfigError(f"{path}: for_data: must be a mapping from kinds of data")
    scale = _scale(name, raw, {"description", "tune", "seeds", "config"}, str(path))
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
    tune = raw.get("tune", True)
    if not isinstance(tune, bool):
        raise ConfigError(f"{where}: tune: expected true or false, got {tune!r}")
    return Scale(name, seeds, config, str(raw.get("description", "")), tune)


# -------------------------------------------------------------------------------------------------------------- layers


def include(layer: Mapping[str, Any], configs: Path) -> dict[str, Any]:
    """A layer on top of the files its key `include` names, paths below `configs/`."""
    own = dict(layer)
    names = own.pop("include", [])
    below: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        below = merge(below, read_yaml(configs / name))
    return merge(below, own)


def data_kind(
    experiment: Experiment, variant: Variant, pairs: Sequence[tuple[str, Any]], configs: Path, kind: str = "text"
) -> str:
    """The kind of a variant's data, which decides what a scale and the evaluations are; `kind` where nothing says."""
    own = [one.overrides for one in experiment.chain(variant)]
    for layer in [include(experiment.base, configs), *own, override({}, pairs)]:
        data = layer.get("data", {})
        kind = data.get("type", kind) if isinstance(data, Mapping) else data
    return kind


def resolve(
    experiment: Experiment,
    scale: Scale,
    variant: Variant,
    pairs: Sequence[tuple[str, Any]],
    configs: Path,
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    """The run configuration of one variant, all layers merged on `defaults`; the variant's lie on its parent's, and
    what it sets in relation comes last. `extend` and `start` are left to the plan, which knows the parent's run.
    Where the base is a checkpoint, `defaults` have what it decides, and a scale says nothing of that.

    Raises ConfigError for a section that does not exist or is not a variant's to set.
    """
    base, size = include(experiment.base, configs), include(scale.config, configs)
    if "from" in base and experiment.folder is None:
        raise ConfigError(f"experiment {experiment.name}: `from` belongs in base() itself, not in a file it includes")
    if base.pop("from", None) is not None:
        _check_base(experiment, base)
        size = _without_folders(size)
    raw = dict(defaults)
    for layer in (base, _without_left_out(size, base)):
        raw = override(raw, layer.items())
    relative: list[tuple[str, Callable[[Any], Any], str]] = []
    for one in experiment.chain(variant):
        plain, functions = _split({k: v for k, v in one.overrides.items() if k not in ("extend", "start")})
        relative = [entry for entry in relative if _at(plain, entry[0]) is None]
        relative += [(path, function, one.name) for path, function in functions.items()]
        raw = override(raw, plain.items())  # unlike merge, goes below `position: rope`
    raw = override(raw, pairs)
    for path, function, name in relative:
        try:
            raw = override(raw, [(path, function(_at(raw, path)))])
        except ConfigError as error:
            raise ConfigError(f"experiment {experiment.name}, variant {name!r}: {path}: {error}") from None
    for section in raw:
        if section not in SECTIONS:
            raise ConfigError(f"{section}: no such key{nearest(str(section), SECTIONS)}")
    if "seed" in raw:
        raise ConfigError("seed: the plan sets it for each run; choose the number of seeds with --seeds")
    return raw


def _without_left_out(size: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A scale's layer without the size of protocols that the experiment leaves out (`sliding: null`)."""
    left_out = {name for name, value in (_at(base, "evaluate.protocols") or {}).items() if value is None}
    sized = _at(size, "evaluate.protocols") or {}
    if not left_out & sized.keys():
        return dict(size)
    kept = {name: value for name, value in sized.items() if name not in left_out}
    return {**size, "evaluate": {**size["evaluate"], "protocols": kept}}


def _check_base(experiment: Experiment, base: Mapping[str, Any]) -> None:
    """A base that is a checkpoint can say nothing of the model."""
    if "model" in base:
        raise ConfigError(
            f"experiment {experiment.name}: base() has `from` and `model`, and the folder decides the model; change it "
            "in variants"
        )


def _without_folders(size: Mapping[str, Any]) -> dict[str, Any]:
    """A scale's layer without what a checkpoint decides: the model, its tokenizer and its length."""
    data = {name: value for name, value in size.get("data", {}).items() if name not in ("tokenizer", "sequence_length")}
    return {name: value for name, value in size.items() if name != "model"} | {"data": data}


def _split(layer: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Callable[[Any], Any]]]:
    """The plain values of a layer, and its functions of what lies below by dotted path."""
    plain: dict[str, Any] = {}
    functions: dict[str, Callable[[Any], Any]] = {}
    for key, value in layer.items():
        if callable(value):
            functions[key] = value
        elif isinstance(value, Mapping):
            plain[key], below = _split(value)
            functions |= {f"{key}.{path}": function for path, function in below.items()}
        else:
            plain[key] = value
    return plain, functions


def _at(raw: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    for part in path.split("."):
        raw = raw.get(part) if isinstance(raw, Mapping) else None
    return raw
