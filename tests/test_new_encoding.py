"""The test of the design: a new positional encoding is one new file. The one that CONTRIBUTING.md shows, dropped into a
copy of the package, is listed, documented, configured, run and held to the contract, and nothing else is edited."""

import re

import pytest

USE = """
import jax, jax.numpy as jnp, jaxgpt
config = jaxgpt.load_config([], [
    "model.position.type=penalty", "model.position.slope=0.2", "model.width=16", "model.num_heads=2",
    "model.num_layers=1", "model.vocab_size=257", "data.sequence_length=4", "data.tokenizer.type=byte",
])
model = jax.jit(config.model.make)(jax.random.key(0))
logits = jax.jit(lambda model, tokens: model(tokens).logits)(model, jnp.array([[1, 2, 3, 4]]))
print(type(config.model.position).__module__, logits.shape, bool(jnp.isfinite(logits).all()), config.hash)
"""


@pytest.fixture(scope="module")
def copy(copy_of_the_package, recipe):
    """The package and the contract test in a folder of their own, with one new file."""
    source = recipe("Add a positional encoding")
    return copy_of_the_package("jaxgpt/nn/position/penalty.py", source, "tests/nn/position", "experiments/oracles.py")


def test_it_is_listed(copy):
    done = copy.run("-m", "jaxgpt.registry", "position")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^penalty +-slope \* distance on the scores", done.stdout, re.MULTILINE)


def test_it_is_documented(copy):
    done = copy.run("-m", "jaxgpt.registry", "position", "penalty")
    assert done.returncode == 0, done.stderr
    assert "position penalty (jaxgpt.nn.position.penalty)" in done.stdout
    assert "arXiv:2108.12409" in done.stdout
    assert "    slope: float = 0.1" in done.stdout


def test_it_is_configured_and_runs(copy):
    done = copy.run("-c", USE)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"jaxgpt\.nn\.position\.penalty \(1, 4, 257\) True [0-9a-f]{8}\n", done.stdout)


def test_it_is_held_to_the_contract(copy):
    done = copy.run(
        "-m",
        "pytest",
        "tests/nn/position/test_contract.py",
        "-k",
        "penalty",
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

    assert "penalty" not in registry.kinds(PositionConfig)
