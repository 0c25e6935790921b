"""Slots and kinds: (slot, kind) -> config class.

A *slot* is a place in the configuration that several variants can fill, such as `position`. Its base config class is
declared with `@slot("position", package="jaxgpt.nn.position")`. A *kind* is one variant: a frozen dataclass below the
slot's base class, declared with `@register("rope")` in any file of the slot's package. Kinds are found by walking that
package, so a new file is a new kind and there is no list to keep.

`python -m jaxgpt.registry [SLOT [KIND]]` lists what exists, with fields, defaults and documentation.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from jaxgpt.errors import ConfigError, UserError, nearest

C = TypeVar("C", bound=type)


@dataclasses.dataclass
class Slot:
    """A place that variants can fill. `kinds` grows as the modules of `package` are imported."""

    name: str
    base: type
    package: str
    kinds: dict[str, type] = dataclasses.field(default_factory=dict)


_SLOTS: dict[str, Slot] = {}


def slot(name: str, package: str) -> Callable[[C], C]:
    """Class decorator: the decorated config class is the base of slot `name`, whose kinds live in `package`."""

    def declare(base: C) -> C:
        _SLOTS[name] = Slot(name, base, package)
        return base

    return declare


def register(kind: str) -> Callable[[C], C]:
    """Class decorator: the decorated frozen dataclass is the variant `kind` of the slot whose base it extends."""

    def add(config_class: C) -> C:
        if "__dataclass_fields__" not in vars(config_class):
            raise TypeError(f"{config_class.__qualname__}: put @register above @dataclass(frozen=True)")
        where = slot_of(config_class)
        if where is None:
            raise TypeError(f"{config_class.__qualname__} extends no slot's base class")
        taken = where.kinds.get(kind)
        if taken is not None and _origin(taken) != _origin(config_class):
            raise TypeError(f"{where.name} {kind!r} is both {_origin(taken)} and {_origin(config_class)}")
        where.kinds[kind] = config_class
        return config_class

    return add


def _origin(config_class: type) -> str:
    return f"{config_class.__module__}.{config_class.__qualname__}"


def slot_of(config_class: type) -> Slot | None:
    """The slot a config class belongs to (itself its base or a kind of it), or None for an ordinary dataclass."""
    for where in _SLOTS.values():
        if issubclass(config_class, where.base):
            return where
    return None


@functools.cache
def _walk(package: str) -> None:
    """Import every module below `package` once, but for those of a package that `NEEDS` a library of an extra which is
    not installed: no slot lives there."""
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(getattr(root, "__path__", []), prefix=f"{package}."):
        needed = getattr(sys.modules[module.name.rpartition(".")[0]], "NEEDS", None)
        without = needed is not None and importlib.util.find_spec(needed) is None
        if not (module.name.endswith("__main__") or without):
            importlib.import_module(module.name)


def found() -> list[Slot]:
    """The slots of the modules imported so far."""
    return list(_SLOTS.values())


def slots() -> dict[str, Slot]:
    """Every slot of the package, by name, with all its kinds found."""
    _walk("jaxgpt")
    return dict(sorted(_SLOTS.items()))


def kinds(base: type) -> dict[str, type]:
    """kind -> config class for the slot with this base class, in alphabetical order."""
    where = slot_of(base)
    if where is None:
        raise TypeError(f"{base.__qualname__} is not the base of a slot")
    _walk(where.package)
    return dict(sorted(where.kinds.items()))


def kind_of(config: Any) -> str:
    """The kind under which the class of `config` was registered."""
    for kind, config_class in kinds(type(config)).items():
        if config_class is type(config):
            return kind
    raise TypeError(f"{type(config).__qualname__} is not registered")


def lookup(base: type, kind: Any, path: str) -> type:
    """The config class of `kind`. A wrong name raises ConfigError with `path`, what exists and the nearest spelling."""
    existing = kinds(base)
    if not isinstance(kind, str) or kind not in existing:
        where = slot_of(base)
        name = where.name if where else base.__qualname__
        raise ConfigError(f"{path}: no {name} is called {kind!r}{nearest(str(kind), existing)}")
    return existing[kind]


# ------------------------------------------------------------------------------------------------- listing for people


def _summary(config_class: type) -> str:
    return (inspect.getdoc(config_class) or "").split("\n", 1)[0]


def describe(slot_name: str | None = None, kind: str | None = None) -> str:
    """Text for people: all slots, the kinds of one slot, or one kind with its fields, defaults and documentation."""
    everything = slots()
    if slot_name is None:
        lines = []
        for where in everything.values():
            lines += [f"{where.name}: {_summary(where.base)}", f"    {', '.join(kinds(where.base)) or '(none)'}"]
        return "\n".join(lines)
    if slot_name not in everything:
        raise ConfigError(f"no slot is called {slot_name!r}{nearest(slot_name, everything)}")
    base = everything[slot_name].base
    if kind is None:
        return "\n".join(f"{name:16s} {_summary(config_class)}" for name, config_class in kinds(base).items())
    config_class = lookup(base, kind, slot_name)
    fields = [f"    {field.name}: {_type(field)} = {_default(field)}" for field in dataclasses.fields(config_class)]
    source: ModuleType = sys.modules[config_class.__module__]
    parts = [f"{slot_name} {kind} ({source.__name__})", inspect.getdoc(config_class) or "", *fields]
    return "\n".join(parts)


def _type(field: dataclasses.Field) -> str:
    return field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return "(required)"


def main(arguments: list[str]) -> int:
    try:
        print(describe(*arguments[:2]))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    # This file run as a script is another module object than the one the variants register with.
    sys.exit(importlib.import_module("jaxgpt.registry").main(sys.argv[1:]))
