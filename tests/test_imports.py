"""Imports point one way, left to right in `ORDER`, from experiments to errors.

Every import counts, also inside functions and for type checkers only: coupling is coupling.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ORDER = (
    ("experiments",),
    ("jaxgpt",),  # the package's face, jaxgpt/__init__.py
    ("experiment",),
    ("harness", "inspect"),
    ("generate",),
    ("launch", "train", "evaluate"),
    ("convert",),
    ("data", "parallel"),
    ("models",),
    ("nn",),
    ("ops",),
    ("config", "lease"),
    ("registry", "files"),
    ("errors",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def room_of(module):
    """`jaxgpt.nn.position.rotary` -> `nn`; None for what is not ours."""
    first, *rest = module.split(".")
    if first == "jaxgpt":
        return rest[0] if rest else "jaxgpt"
    return "experiments" if first == "experiments" else None


def imports_of(source, module, is_package):
    """(line, imported module) of every import; names imported from `jaxgpt` itself are modules or its public face."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            for name in node.names:
                below = f"{base}.{name.name}"
                yield node.lineno, below if base == "jaxgpt" and room_of(below) in RANK else base


def violations(source, module, is_package=False):
    """Imports of `module` that point to a room not right of its own, as text."""
    own = room_of(module)
    if own not in RANK:
        return [f"{module}: the room {own!r} has no place in ORDER"]
    found = []
    for line, target in imports_of(source, module, is_package):
        room = room_of(target)
        if room is None or room == own:
            continue
        if room not in RANK:
            found.append(f"{module}, line {line}: {target} is in no known room")
        elif RANK[room] <= RANK[own]:
            found.append(f"{module}, line {line}: {own} must not import {target}")
    return found


def modules():
    for folder in ("jaxgpt", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            yield path, ".".join(parts[:-1] if is_package else parts), is_package


def test_every_import_points_one_way():
    everything = list(modules())
    assert len(everything) > 30
    found = [text for path, name, package in everything for text in violations(path.read_text(), name, package)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxgpt.nn.block", "from jaxgpt.train.loop import train"),
        ("jaxgpt.nn.block", "import jaxgpt.models.decoder"),
        ("jaxgpt.data.dataset", "def late():\n    from jaxgpt.experiment import plan"),
        ("jaxgpt.data.dataset", "from jaxgpt.parallel.mesh import mesh"),  # of the same rank
        ("jaxgpt.launch.machine", "from ..train import loop"),
        ("jaxgpt.errors", "from jaxgpt import config"),
        ("jaxgpt.experiment.cli", "import experiments.run"),
        ("jaxgpt.models.decoder", "from jaxgpt import load_config"),
        (
            "jaxgpt.nn.block",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from jaxgpt.train.run import RunConfig",
        ),
        ("jaxgpt.nn.block", "from jaxgpt.cellar import wine"),
        ("jaxgpt.cellar.wine", "import os"),
    ],
)
def test_a_wrong_import_is_caught(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "jaxgpt.experiment.cli",
            "from jaxgpt.launch.executor.local import Pool\nfrom jaxgpt.train.run import RunConfig",
        ),
        ("jaxgpt.nn.block", "from . import norm\nfrom .position import base\nimport jax\nfrom jaxgpt import registry"),
        ("experiments.rope_vs_alibi", "from jaxgpt.experiment.spec import Variant"),
    ],
)
def test_a_right_import_is_not(module, source):
    assert not violations(source, module)


def test_relative_imports_of_a_package_are_resolved():
    assert list(imports_of("from .spec import x", "jaxgpt.experiment", True)) == [(1, "jaxgpt.experiment.spec")]
    assert list(imports_of("from ..train import x", "jaxgpt.launch.machine", False)) == [(1, "jaxgpt.train")]
