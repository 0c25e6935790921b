"""Frozen dataclasses <-> YAML: strict decoding, dotted overrides, stable content hash.

Configurations are nested frozen dataclasses. As text they are YAML mappings in which a variant names its kind:

    position: {type: rope, theta: 10000, scaling: {type: yarn, factor: 4.0, original_length: 128}}

and `position: alibi` is short for `position: {type: alibi}`. Layers are merged as plain mappings (`merge`), lowest
precedence first, and decoded once at the end; every mistake is a `ConfigError` that names the path.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from jaxgpt import registry
from jaxgpt.errors import ConfigError, nearest

T = TypeVar("T")

# --------------------------------------------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number (YAML 1.2) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ConfigError(f"{self.name}, line {key_node.start_mark.line + 1}: {key!r} cannot be a key")
            if key in seen:
                raise ConfigError(f"{self.name}, line {key_node.start_mark.line + 1}: {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes the texts which the loader would read as numbers."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def _parse(text: str, name: str) -> Any:
    try:
        loader = _Loader(text)  # refuses control characters here already
        loader.name = name
        return loader.get_single_data()
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. `include: [other.yaml]` merges other files (relative to this one) below it."""
    return _read_yaml(Path(path), ())


def _read_yaml(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"{path}: includes itself")
    try:
        raw = _parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values")
    included = raw.pop("include", [])
    names = [included] if isinstance(included, str) else included
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: include: expected the name of a file or a list of them, got {included!r}")
    below: dict[str, Any] = {}
    for name in names:
        below = merge(below, _read_yaml(path.parent / name, (*above, path.resolve())))
    return merge(below, raw)


def write_yaml(raw: Mapping[str, Any]) -> str:
    """YAML text that `read_yaml` reads back as `raw`; keys keep their order."""
    return yaml.dump(dict(raw), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


# ------------------------------------------------------------------------------------------------ layers and overrides


def merge(base: Any, over: Any) -> Any:
    """`over` on top of `base`, key by key. Another `type` replaces a mapping whole (its old siblings would be stale);
    so does a mapping that gives one variant per layer kind, and so is it replaced by one variant for all."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    if "type" in base and "type" in over:
        replaces = base["type"] != over["type"]
    elif "type" in base:
        replaces = _by_layer_kind(over, base["type"])
    else:
        replaces = "type" in over and _by_layer_kind(base, over["type"])
    if replaces:
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def _by_layer_kind(raw: Mapping[str, Any], kind: Any) -> bool:
    """Whether `raw` gives variants by layer kind: its values name kinds of a slot that has `kind`, and no key is one of
    that kind's fields."""
    places = [where for where in registry.found() if str(kind) in where.kinds]
    fields = set().union(*(_fields(where.kinds[str(kind)]) for where in places))
    named = [str(value.get("type") if isinstance(value, Mapping) else value) for value in raw.values()]
    return not fields & set(raw) and any(name in where.kinds for where in places for name in named)


def parse_overrides(assignments: Iterable[str]) -> list[tuple[str, Any]]:
    """`["train.steps=500", ...]` as pairs of path and value; values are YAML."""
    pairs = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path or any(not part for part in path.split(".")):
            raise ConfigError(f"--set {assignment!r}: expected PATH=VALUE, such as train.steps=500")
        pairs.append((path, _parse(text, f"--set {path}")))
    return pairs


def override(raw: Mapping[str, Any], pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """`raw` with every (dotted path, value) merged in, in order. Paths are checked when the result is decoded."""
    merged = dict(raw)
    done: list[str] = []
    for path, value in pairs:
        _refuse_forgetting(merged, path, value, done)
        done.append(path)
        for part in reversed(path.split(".")):
            value = {part: value}
        merged = merge(_open_shorthand(merged, value), value)
    return merged


def _refuse_forgetting(raw: Any, path: str, value: Any, done: Iterable[str]) -> None:
    """Raise ConfigError where another `type` would drop what an earlier override set below it."""
    above, dot, last = path.rpartition(".")
    if last != "type" or not dot:
        return
    for part in above.split("."):
        raw = raw.get(part) if isinstance(raw, Mapping) else None
    before = raw.get("type") if isinstance(raw, Mapping) else None
    lost = [earlier for earlier in done if earlier.startswith(f"{above}.") and earlier != path]
    if before not in (None, value) and lost:
        raise ConfigError(f"--set {path}={value} drops {lost[0]}, set before it; give the type first")


def _open_shorthand(raw: Any, over: Any) -> Any:
    """`position: rope` becomes `position: {type: rope}` along the way of an override that goes below it."""
    if not isinstance(over, Mapping):
        return raw
    if isinstance(raw, str):
        raw = {"type": raw}
    if not isinstance(raw, Mapping):
        return raw
    return {key: _open_shorthand(value, over[key]) if key in over else value for key, value in raw.items()}


# ----------------------------------------------------------------------------------------------------- decode, encode


class FrozenMapping(Mapping[str, T]):
    """A mapping that cannot change and can be hashed: what a config field of mapping type holds."""

    def __init__(self, items: Mapping[str, T] | Iterable[tuple[str, T]] = ()):
        self._items = dict(items)

    def __getitem__(self, key: str) -> T:
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))  # equal whatever the order, as == is

    def __repr__(self) -> str:
        return f"FrozenMapping({self._items!r})"


@functools.cache
def _fields(config_class: type) -> dict[str, tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(config_class)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(config_class) if field.init}


def decode(kind: type[T], raw: Any, path: str = "") -> T:
    """Build `kind` (a dataclass or a slot's base class) from plain YAML values; strict in keys, kinds and types."""
    return _decode(kind, raw, path)


def _decode(kind: Any, raw: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(typing.get_args(kind), raw, path)
    if origin is Literal:
        options = typing.get_args(kind)
        if raw not in options:
            raise ConfigError(f"{path}: {raw!r} is not possible{nearest(str(raw), map(str, options))}")
        return raw
    if origin is tuple:
        if not isinstance(raw, (list, tuple)):
            raise ConfigError(f"{path}: expected a list, got {_shown(raw)}")
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, value, f"{path}[{i}]") for i, value in enumerate(raw))
    if origin in (dict, Mapping):
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{path}: expected a mapping, got {_shown(raw)}")
        item = typing.get_args(kind)[1]
        return FrozenMapping({str(key): _decode(item, value, _join(path, key)) for key, value in raw.items()})
    if dataclasses.is_dataclass(kind) or registry.slot_of(kind) is not None:
        return _decode_dataclass(typing.cast(type, kind), raw, path)
    return _decode_scalar(kind, raw, path)


def _decode_union(options: tuple[Any, ...], raw: Any, path: str) -> Any:
    if raw is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    mappings = [option for option in options if typing.get_origin(option) in (dict, Mapping)]
    if len(options) == 1:
        return _decode(options[0], raw, path)
    if mappings and isinstance(raw, Mapping) and "type" not in raw:
        return _decode(mappings[0], raw, path)
    rest = [option for option in options if option not in mappings]
    for option in rest[:-1]:
        try:
            return _decode(option, raw, path)
        except ConfigError:
            continue
    return _decode(rest[-1], raw, path)


def _decode_dataclass(kind: type, raw: Any, path: str) -> Any:
    where = registry.slot_of(kind)
    if isinstance(raw, kind):
        return raw
    if where is not None and isinstance(raw, str):
        raw = {"type": raw}
    if not isinstance(raw, Mapping):
        wanted = f"a {where.name}" if where else "a mapping"
        raise ConfigError(f"{path or 'configuration'}: expected {wanted}, got {_shown(raw)}")
    raw = dict(raw)
    if where is not None:
        if "type" not in raw:
            raise ConfigError(f"{path or where.name}: needs `type:`{nearest('', registry.kinds(kind))}")
        kind = registry.lookup(where.base, raw.pop("type"), _join(path, "type"))
    fields = _fields(kind)
    for key in raw:
        if key not in fields:
            raise ConfigError(f"{_join(path, key)}: no such key{nearest(str(key), fields)}")
    values = {key: _decode(fields[key][1], value, _join(path, key)) for key, value in raw.items()}
    for name, (field, _) in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and name not in values:
            raise ConfigError(f"{_join(path, name)}: must be given")
    try:
        return kind(**values)
    except ConfigError:
        raise
    except ValueError as error:  # what a __post_init__ says of its own values
        raise ConfigError(f"{path or 'configuration'}: {error}") from None


def _decode_scalar(kind: Any, raw: Any, path: str) -> Any:
    if kind is Any:
        return raw
    if kind is float and isinstance(raw, (int, float)) and not isinstance(raw, bool):
        if not math.isfinite(raw):
            raise ConfigError(f"{path}: expected a finite number, got {raw}")
        return float(raw)
    if isinstance(raw, kind) and (kind is bool or not isinstance(raw, bool)):
        return raw
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    raise ConfigError(f"{path}: expected {names.get(kind, kind)}, got {_shown(raw)}")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _shown(raw: Any) -> str:
    return "nothing (null)" if raw is None else repr(raw)


def encode(config: Any) -> Any:
    """Plain YAML values of a config, complete with defaults and kinds; `decode` turns them back into its equal."""
    return _encode(config, hashed_only=False)


def _encode(config: Any, hashed_only: bool) -> Any:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values = {
            name: _encode(getattr(config, name), hashed_only)
            for name, (field, _) in _fields(type(config)).items()
            if not hashed_only or _is_hashed(field, getattr(config, name))
        }
        if registry.slot_of(type(config)) is not None:
            return {"type": registry.kind_of(config), **values}
        return values
    if isinstance(config, (list, tuple)):
        return [_encode(value, hashed_only) for value in config]
    if isinstance(config, Mapping):
        return {key: _encode(value, hashed_only) for key, value in config.items()}
    return config


def _is_hashed(field: dataclasses.Field, value: Any) -> bool:
    hashed = field.metadata.get("hashed", True)
    return value != field.default if hashed == "unless default" else hashed


def unhashed(default: Any) -> Any:
    """A dataclass field that changes no result (how often to log, say) and so stays out of the content hash."""
    return dataclasses.field(default=default, metadata={"hashed": False})


def added_later(default: Any) -> Any:
    """A dataclass field that configurations of before did not have: at its default, which means what they meant, it
    stays out of the content hash, so that their hashes still hold."""
    return dataclasses.field(default=default, metadata={"hashed": "unless default"})


def content_hash(config: Any, length: int = 8) -> str:
    """Hexadecimal digest of what a config says, whatever the order of its keys; the same in every process."""
    text = json.dumps(_encode(config, hashed_only=True), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
