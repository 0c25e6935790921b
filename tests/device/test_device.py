"""What holds on a GPU or a TPU: `pytest -m device` on a machine that has one. With `JAXGPT_DEVICE_TESTS=cpu` before it,
the tests themselves are tried on a CPU, as two pretended devices.

Everything runs in processes of its own, one after the other: a TPU serves one at a time, and flags are read when one
starts. This process never touches a device.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxgpt.launch.machine import accelerators
from jaxgpt.train.checkpoint import Checkpoints

ON_CPU = os.environ.get("JAXGPT_DEVICE_TESTS") == "cpu"
THERE = {name: value for name, value in os.environ.items() if (name, value) != ("JAX_PLATFORMS", "cpu")}  # conftest's
CPU = {"JAX_PLATFORMS": "cpu"}
PRETENDED = {**CPU, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
DEVICE = PRETENDED if ON_CPU else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # float32, not TF32 or bfloat16

pytestmark = [
    pytest.mark.device,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not ON_CPU and not accelerators(THERE),
        reason="needs an accelerator that JAX can use; JAXGPT_DEVICE_TESTS=cpu tries the tests on a CPU",
    ),
]

# Relative to the largest number of an array. TF32 keeps 11 bits of the numbers it multiplies and a TPU's default 8, as
# bfloat16 does, of which weights and gradients are rounded several times.
TOLERANCES = {"float32": 5e-5, "float32, default precision": 3e-2, "bfloat16": 3e-2}
LOSS_TOLERANCE = 2e-3  # nats, in each of 20 steps beside the CPU's and beside one device's
STEPS = 20
EXPERTS = "model.feedforward={type: moe, experts: 4, router: {type: softmax}}"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    words = np.random.default_rng(0).choice(["the", "state", "of", "union", "is", "strong"], 4000)
    for number in range(10):
        (folder / f"{number}.txt").write_text(" ".join(words[400 * number : 400 * (number + 1)]))
    return folder


def python(*arguments, environment):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**THERE, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def train(text):
    """`train(folder, settings, environment)`: losses by step, weights and environment.json of a run. Its cache is its
    own, so that every run compiles for itself."""

    def run(folder, settings, environment):
        sizes = ["model.num_layers=2", "model.num_heads=4", "model.width=64", "data.sequence_length=64"]
        data = ["data.corpus.type=text", f"data.corpus.path={text}", "data.tokenizer.type=byte"]
        steps = [f"train.steps={STEPS}", "train.batch_size=8", "train.log_every=1", "train.tensorboard=false"]
        settings = [*sizes, *data, *steps, *settings]
        environment = {"JAXGPT_CACHE": str(folder / "cache"), **environment}
        python("-m", "jaxgpt.train", "--run-dir", folder / "run", "--set", *settings, environment=environment)
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        checkpoints = Checkpoints(folder / "run" / "checkpoints", writes=False)
        arrays = checkpoints.arrays()
        checkpoints.close()
        described = json.loads((folder / "run" / "environment.json").read_text())
        return [line["loss"] for line in lines if "loss" in line], arrays, described

    return run


@pytest.fixture(scope="module")
def found():
    """What the script beside this file computed there."""
    printed = python(Path(__file__).with_name("on_device.py"), environment=DEVICE)
    return json.loads(printed.splitlines()[-1])


@pytest.mark.parametrize("settings", [["model.compute_dtype=bfloat16"], [EXPERTS]], ids=["dense, bfloat16", "experts"])
def test_a_deterministic_run_repeats_bit_for_bit(train, tmp_path, settings):
    settings = [*settings, "train.deterministic=true"]
    losses, arrays, described = train(tmp_path / "once", settings, DEVICE)
    again, others, _ = train(tmp_path / "again", settings, DEVICE)
    assert "--xla_gpu_deterministic_ops=true" in described["variables"]["XLA_FLAGS"]
    assert len(losses) == STEPS
    assert losses == again
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


@pytest.mark.parametrize("settings", [[], [EXPERTS]], ids=["dense", "experts"])
def test_losses_are_those_of_a_cpu(train, tmp_path, settings):
    losses, _, described = train(tmp_path / "device", settings, {**DEVICE, **EXACT})
    wanted, _, _ = train(tmp_path / "cpu", settings, {**CPU, **EXACT})
    assert described["matmul_precision"] == "highest"
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_allclose(losses, wanted, rtol=0, atol=LOSS_TOLERANCE)


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_all_devices_together_equal_one(train, found, tmp_path, axis):
    if found["count"] == 1:
        pytest.skip("there is one device only")
    batch = [f"train.batch_size={8 * found['count']}"]
    losses, _, _ = train(tmp_path / "mesh", [*batch, f"train.mesh={{{axis}: {found['count']}}}"], {**DEVICE, **EXACT})
    wanted, _, _ = train(tmp_path / "one", batch, {**DEVICE, **EXACT})
    np.testing.assert_allclose(losses, wanted, rtol=0, atol=LOSS_TOLERANCE)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_fast_paths_equal_the_naive_forms(found, precision):
    errors = {name: error for name, error in found["errors"].items() if name.endswith(f": {precision}")}
    assert len(errors) == 7
    assert all(0 <= error <= TOLERANCES[precision] for error in errors.values()), errors  # NaN is neither


def test_it_is_the_device_and_it_counts_its_memory(found):
    assert (found["platform"] == "cpu") == ON_CPU, "JAX took the CPU: is its plugin for the accelerator installed?"
    if ON_CPU:
        pytest.skip("a CPU does not count memory")
    assert 0 < found["memory"]["bytes_in_use"] <= found["memory"]["peak_bytes_in_use"] < found["memory"]["bytes_limit"]
