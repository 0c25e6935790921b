"""The test of the design: a new synthetic task is one new file, the one that CONTRIBUTING.md shows. Dropped into a copy
of the package it is listed, configured, trained, measured and held to the contract, and nothing else is edited."""

import re

import pytest

USE = """
from jaxgpt.evaluate import evaluate, model_scorer
from jaxgpt.evaluate.config import default_evaluation
from jaxgpt.train.loop import train
from jaxgpt.train.run import load_config

config = load_config([], [
    "data.type=task", "data.task.type=maximum", "data.task.numbers=5", "data.max_length=4", "model.width=16",
    "model.num_heads=2", "model.num_layers=1", "train.steps=3", "train.batch_size=4", "train.tensorboard=false",
])
model = train(config, "run").model
measured = evaluate(model_scorer(model), default_evaluation(type(config.data)), config.data.prepare(), 4)
print(config.model.vocab_size, sorted({one.context for one in measured}), {one.metric for one in measured})
"""


@pytest.fixture(scope="module")
def copy(copy_of_the_package, recipe):
    """The package and the contract test in a folder of their own, with one new file."""
    source = recipe("Add a synthetic task")
    return copy_of_the_package("jaxgpt/data/tasks/maximum.py", source, "tests/data/tasks")


def test_it_is_listed(copy):
    done = copy.run("-m", "jaxgpt.registry", "task")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^maximum +The greatest of some numbers", done.stdout, re.MULTILINE)


def test_it_is_configured_trained_and_measured(copy):
    done = copy.run("-c", USE)
    assert done.returncode == 0, done.stderr
    line = done.stdout.strip().splitlines()[-1]
    assert line.startswith("7 [2, 4, 5, 6, 7, 8] ")
    assert "task_exact_match" in line


def test_it_is_held_to_the_contract(copy):
    test = "tests/data/tasks/test_contract.py"
    done = copy.run("-m", "pytest", test, "-k", "maximum", "-p", "no:cacheprovider", "-n0")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 9
    assert "skipped" not in done.stdout
