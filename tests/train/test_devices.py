"""What a run computes on: one device, a mesh, copies. That they compute the same is in tests/parallel."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from jaxgpt.errors import ConfigError
from jaxgpt.parallel.mesh import MeshConfig
from jaxgpt.train.devices import Copies, Devices, OnMesh, devices_of
from jaxgpt.train.run import TrainConfig

BATCH = {"inputs": np.arange(12, dtype=np.int32).reshape(4, 3)}


def twice(state):
    return {"a": 2 * state["a"]}


@pytest.fixture(params=["one", "mesh", "copies"])
def devices(request):
    asked = {"one": {}, "mesh": {"mesh": MeshConfig()}, "copies": {"compile": "pmap"}}[request.param]
    return devices_of(TrainConfig(batch_size=4, **asked))


def test_the_configuration_decides():
    assert type(devices_of(TrainConfig())) is Devices
    assert type(devices_of(TrainConfig(mesh=MeshConfig()))) is OnMesh
    assert type(devices_of(TrainConfig(compile="pmap"))) is Copies


def test_a_state_begins_moves_and_is_kept_whole(devices):
    def move(state, batch):
        total = batch["inputs"].sum()
        total = total if devices.axis is None else jax.lax.psum(total, devices.axis)
        return {"a": state["a"] + total}, {"total": total}

    def make():
        return {"a": jax.numpy.arange(3)}

    state = devices.begin(make)
    step = devices.step(move, jax.eval_shape(make))
    state, metrics = step(state, devices.put(BATCH))
    assert int(metrics["total"]) == 66
    np.testing.assert_array_equal(devices.whole(state)["a"], [66, 67, 68])
    again, _ = step(devices.spread(devices.whole(state)), devices.put(BATCH))
    np.testing.assert_array_equal(devices.whole(again)["a"], [132, 133, 134])
    np.testing.assert_array_equal(devices.function(twice)(devices.whole(again))["a"], [264, 266, 268])


def test_a_state_begins_with_what_is_given(devices):
    state = devices.begin(twice, {"a": jax.numpy.arange(3)})
    np.testing.assert_array_equal(devices.whole(state)["a"], [0, 2, 4])


def test_only_a_mesh_asks_for_places(devices):
    places = devices.places({"a": jax.ShapeDtypeStruct((3,), np.int32)})
    if isinstance(devices, OnMesh):
        assert isinstance(places["a"], NamedSharding)
        np.testing.assert_array_equal(devices.rows, np.arange(4), "one process loads all")
    else:
        assert places is None
        assert devices.rows is None


def test_what_cannot_be_is_named(monkeypatch):
    with pytest.raises(ValueError, match="compile: pmap keeps a copy of the model on every device"):
        TrainConfig(mesh=MeshConfig(), compile="pmap")
    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    with pytest.raises(ConfigError, match=r"train\.compile: pmap divides rows among 3 devices, and there are 8"):
        devices_of(TrainConfig(batch_size=16, accumulation=2, compile="pmap"))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"train\.compile: pmap is for one process"):
        devices_of(TrainConfig(compile="pmap"))
    with pytest.raises(ConfigError, match=r"train\.mesh: several processes need one"):
        devices_of(TrainConfig())
