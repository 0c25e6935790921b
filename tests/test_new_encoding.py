"""The test of the design: a new positional encoding is one new file. Dropped into a copy of the package it is listed,
documented, configured, run and held to the contract, and nothing else is edited."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = '''"""A bias that falls with the logarithm of the distance, at a learned pace per head."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.params import normal
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.registry import register


@register("dropped_in")
@dataclasses.dataclass(frozen=True)
class DroppedInConfig(PositionConfig):
    """Scores fall with the logarithm of the distance (in the manner of Chi et al. 2022, arXiv:2205.09921).

    init_std: standard deviation of the pace at the start.
    """

    init_std: float = 1.0

    def make(self, dims: PositionDims, key: Array) -> DroppedIn:
        return DroppedIn(self.init_std, dims.num_heads, key)


class DroppedIn(PositionEncoding):
    has_bias = True

    def __init__(self, init_std: float, num_heads: int, key: Array):
        self.pace = normal(key, "pace", (num_heads,), ("heads",), init_std, decay=False)

    def bias(self, q: Positions, k: Positions) -> Array:
        distance = jnp.abs(q.position[:, :, None] - k.position[:, None, :]).astype(jnp.float32)
        pace = jnp.square(self.pace[...])
        return -pace[None, :, None, None] * jnp.log1p(distance)[:, None]
'''
USE = """
import jax, jax.numpy as jnp, jaxgpt
config = jaxgpt.load_config([], [
    "model.position.type=dropped_in", "model.position.init_std=2", "model.width=16", "model.num_heads=2",
    "model.num_layers=1", "model.vocab_size=257", "data.sequence_length=4", "data.tokenizer.type=byte",
])
model = jax.jit(config.model.make)(jax.random.key(0))
logits = jax.jit(lambda model, tokens: model(tokens).logits)(model, jnp.array([[1, 2, 3, 4]]))
print(type(config.model.position).__module__, logits.shape, bool(jnp.isfinite(logits).all()), config.hash)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package and the contract test in a folder of their own, with one new file."""
    root = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "jaxgpt", root / "jaxgpt", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "nn" / "position", root / "tests" / "nn" / "position", ignore=ignore)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "jaxgpt" / "nn" / "position" / "dropped_in.py").write_text(SOURCE)
    return root


def run(copy, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(copy), "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True)


def test_it_is_listed(copy):
    done = run(copy, "-m", "jaxgpt.registry", "position")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^dropped_in +Scores fall with the logarithm", done.stdout, re.MULTILINE)


def test_it_is_documented(copy):
    done = run(copy, "-m", "jaxgpt.registry", "position", "dropped_in")
    assert done.returncode == 0, done.stderr
    assert "position dropped_in (jaxgpt.nn.position.dropped_in)" in done.stdout
    assert "arXiv:2205.09921" in done.stdout
    assert "    init_std: float = 1.0" in done.stdout


def test_it_is_configured_and_runs(copy):
    done = run(copy, "-c", USE)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"jaxgpt\.nn\.position\.dropped_in \(1, 4, 257\) True [0-9a-f]{8}\n", done.stdout)


def test_it_is_held_to_the_contract(copy):
    done = run(
        copy,
        "-m",
        "pytest",
        "tests/nn/position/test_contract.py",
        "-k",
        "dropped_in or DroppedIn",
        "-p",
        "no:cacheprovider",
        "-n0",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15
    assert "failed" not in done.stdout
    assert "skipped" not in done.stdout


def test_it_is_nowhere_but_in_the_copy():
    from jaxgpt import registry
    from jaxgpt.nn.position.base import PositionConfig

    assert "dropped_in" not in registry.kinds(PositionConfig)
