"""Meshes: what lies where, and that training on one equals training on one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxgpt.config import decode, encode
from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.params import flatten
from jaxgpt.parallel.mesh import Layout, MeshConfig
from jaxgpt.train.run import RunConfig, TrainConfig

EXPERTS = {"type": "moe", "experts": 4, "expert": {"type": "gated", "hidden": 16}, "router": {"type": "softmax"}}
MODELS = {
    "dropless": {"feedforward": EXPERTS},
    "ragged": {"feedforward": {**EXPERTS, "implementation": "ragged"}},
    "capacity": {"feedforward": {**EXPERTS, "capacity": 1.25}},
}
OPTIMIZERS = {
    "muon": {"optimizer": {"type": "muon"}, "ema": 0.9},
    "adafactor": {"optimizer": {"type": "adafactor", "factored_from": 16}},
    "groups": {
        "optimizer": {"type": "schedule_free"},
        "schedule": {"type": "constant"},
        "layer_statistics": True,
        "groups": [{"match": ["embedding"], "learning_rate": 0.5}, {"match": ["*/query"], "learning_rate": 0.0}],
    },
}


PACKED = {"data": {"packing": "documents"}, "train": {"accumulation": 2, "batch_size": 16}}
MESHES = ("data", "fsdp", "tensor", "expert", "all", "context", "long")
CASES = {  # what differs from the tiny run, on what it is tried, and for how many steps
    "dense": ({}, (*MESHES, "cube", "pmap"), 20),
    **{name: ({"model": model}, MESHES, 6) for name, model in MODELS.items()},
    **{name: ({"train": train}, ("all", "pmap"), 6) for name, train in OPTIMIZERS.items()},
    "mup": ({"model": {"mup_base": {"width": 16}}}, ("all", "pmap"), 6),
    "packed": (PACKED, ("all", "long", "pmap"), 6),
    "fox": ({"model": {"mixer": {"type": "fox"}}}, ("long",), 6),
    "latent": ({"model": {"mixer": {"type": "latent"}, "position": {"type": "rope"}}}, ("long",), 6),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a process with eight pretended devices computed."""
    folder = tmp_path_factory.mktemp("meshes")
    (folder / "text").mkdir()
    words = np.random.default_rng(0).choice(["the", "state", "of", "union", "is", "strong"], 4000)
    for number in range(10):
        (folder / "text" / f"{number}.txt").write_text(" ".join(words[400 * number : 400 * (number + 1)]))
    raw = encode(RunConfig())
    raw["model"].update(
        vocab_size=264, train_length=None, num_layers=2, num_heads=4, width=32, position={"type": "alibi"}
    )
    raw["data"].update(corpus={"type": "text", "path": str(folder / "text")}, tokenizer={"type": "byte"})
    raw["data"]["sequence_length"] = 16
    raw["threads"] = 16  # as many as devices leave some of them waiting for each other for ever, now and then
    raw["train"].update(batch_size=8, log_every=1, validate_every=6, validation_tokens=256, tensorboard=False)
    (folder / "config.json").write_text(json.dumps(raw))
    cases = {name: (changes, ["none", *ways], steps) for name, (changes, ways, steps) in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(cases))
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false",
        "JAX_PLATFORMS": "cpu",
        "JAXGPT_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, str(Path(__file__).with_name("on_devices.py")), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("case", "way"), [(name, way) for name, (_, ways, _) in CASES.items() for way in ways])
def test_training_equals_that_on_one_device(found, case, way):
    alone, here = found[f"{case} none"], found[f"{case} {way}"]
    assert alone["hash"] == here["hash"], "devices make no other run"
    assert len(here["losses"]) == CASES[case][2]
    np.testing.assert_allclose(here["losses"], alone["losses"], atol=1e-5)
    assert here["validation"] == pytest.approx(alone["validation"], abs=1e-5)
    for name, norm in alone["norms"].items():
        assert here["norms"][name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name
    assert bool(alone["layers"]) == (case == "groups")
    for what in alone["layers"].keys() - {"step"}:
        for name, norm in alone["layers"][what].items():
            np.testing.assert_allclose(here["layers"][what][name], norm, rtol=1e-3, atol=1e-6, err_msg=f"{what} {name}")


@pytest.mark.slow
def test_experts_and_heads_are_divided(found):
    assert "'expert'" in found["dropless expert"]["specs"]["blocks/feedforward/experts/up"]
    assert "'tensor'" in found["dense tensor"]["specs"]["blocks/mixer/query"]
    assert "'fsdp'" in found["dense fsdp"]["specs"]["blocks/mixer/query"]


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(found):
    for name, norm in found["dropless none"]["norms"].items():
        assert found["moved"]["norms"][name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name


def test_dimensions_lie_where_the_table_says():
    mesh = jax.sharding.AbstractMesh((1, 2, 2, 2), ("data", "fsdp", "tensor", "expert"))
    config = DecoderConfig(vocab_size=64, train_length=8, num_layers=2, num_heads=4, num_kv_heads=1, width=32)
    abstract = jax.eval_shape(config.make, jax.random.key(0))
    places = {name: place.spec for name, place in flatten(Layout(mesh).of(abstract)).items()}
    assert places["embedding"] == PartitionSpec("tensor", "fsdp")
    assert places["blocks/mixer/query"] == PartitionSpec(None, "fsdp", "tensor", None)
    assert places["blocks/mixer/key"] == PartitionSpec(None, "fsdp", None, None), "one head is not divided by two"


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match=r"train\.mesh: 2 data x 4 expert is 8 device"):
        MeshConfig(data=2, expert=4).make(jax.devices()[:1])
    with pytest.raises(ConfigError, match=r"train\.mesh.*: must be at least 1, got 0"):
        decode(TrainConfig, {"mesh": {"data": 0}}, "train")
    with pytest.raises(ConfigError, match=r"train\.mesh\.context: 3 does not divide the 128 tokens"):
        decode(RunConfig, {"train": {"mesh": {"context": 3}}, "data": {"type": "text", "sequence_length": 128}})
    with pytest.raises(ConfigError, match="mesh: divides rows among 3, and there are 4 at a time"):
        decode(TrainConfig, {"mesh": {"data": 3}, "batch_size": 8, "accumulation": 2}, "train")
