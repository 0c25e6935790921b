import importlib.machinery
import importlib.util
import os

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.launch import machine


def cgroup(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / name.replace("_", ".", 1)).write_text(text)
    return tmp_path


def test_cores_follow_affinity_and_quota(tmp_path):
    everyone = sorted(os.sched_getaffinity(0))
    assert machine.cores(tmp_path) == everyone
    assert machine.cores(cgroup(tmp_path, cpu_max="max 100000\n")) == everyone
    assert machine.cores(cgroup(tmp_path, cpu_max="50000 100000\n")) == everyone[:1]


def test_memory_is_the_smaller_of_system_and_container(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    2048 kB\n")
    assert machine.available_memory(tmp_path, tmp_path) == 2048 * 1024
    cgroup(tmp_path, memory_max="1000000\n", memory_current="600000\n", memory_stat="anon 5\ninactive_file 100000\n")
    assert machine.available_memory(tmp_path, tmp_path) == 500000
    assert machine.available_memory(tmp_path / "no", tmp_path / "no") is None


def test_accelerators(tmp_path):
    assert machine.accelerators({}, tmp_path, cuda=True) == []
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    two = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert machine.accelerators({}, tmp_path, cuda=True) == two
    assert machine.accelerators({}, tmp_path, cuda=False) == [], "JAX without its plugin runs on the CPU"
    assert machine.accelerators({"JAX_PLATFORMS": "cpu"}, tmp_path, cuda=True) == []
    assert machine.accelerators({"CUDA_VISIBLE_DEVICES": "3"}, tmp_path, True) == [{"CUDA_VISIBLE_DEVICES": "3"}]
    assert machine.accelerators({"CUDA_VISIBLE_DEVICES": ""}, tmp_path, cuda=True) == []
    (tmp_path / "tpu").mkdir()
    (tmp_path / "tpu" / "accel0").touch()
    assert machine.accelerators({}, tmp_path / "tpu") == [{}]


def test_the_plugin_for_cuda_is_looked_for(tmp_path, monkeypatch):
    for name, found in (("xla_tpu", False), ("xla_cuda13", True)):
        (tmp_path / "jax_plugins" / name).mkdir(parents=True)
        (tmp_path / "jax_plugins" / name / "__init__.py").touch()
        spec = importlib.machinery.ModuleSpec("jax_plugins", None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path / "jax_plugins")]
        monkeypatch.setattr(importlib.util, "find_spec", lambda _, spec=spec: spec)
        assert machine.has_cuda_plugin() is found
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not machine.has_cuda_plugin()


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(machine, "accelerators", list)
    monkeypatch.setattr(machine, "cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(machine, "affinity", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(machine, "available_memory", lambda: 10 * machine.GIB)


@pytest.mark.usefixtures("four_cores")
class TestSlots:
    def test_fill_the_machine_and_are_pinned(self):
        assert [slot.cpus for slot in machine.local_slots(2)] == [(0, 1), (2, 3)]
        assert [slot.cpus for slot in machine.local_slots(1)] == [(0,), (1,), (2,), (3,)]

    def test_under_a_quota_none_is_pinned(self, monkeypatch):
        monkeypatch.setattr(machine, "affinity", lambda: list(range(64)))
        assert [slot.cpus for slot in machine.local_slots(1)] == [()] * 4

    def test_threads_are_the_same_whatever_the_number_of_workers(self):
        for workers in (1, 2, 9):
            slots = machine.local_slots(1, workers)
            assert len(slots) == workers
            assert {slot.env["NPROC"] for slot in slots} == {"1"}
            assert not any(slot.cpus for slot in slots)

    def test_memory_limits_them(self):
        assert len(machine.local_slots(1, memory_per_task=4 * machine.GIB)) == 2
        assert len(machine.local_slots(1, memory_per_task=400 * machine.GIB)) == 1

    def test_more_threads_than_cores_is_one_slot(self):
        assert len(machine.local_slots(8)) == 1

    def test_workers_must_be_positive(self):
        with pytest.raises(ConfigError, match="--workers 0"):
            machine.local_slots(1, 0)


def test_one_slot_per_accelerator(monkeypatch):
    monkeypatch.setattr(machine, "accelerators", lambda: [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}])
    slots = machine.local_slots(4)
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1"]
    assert slots[0].env["NPROC"] == "4"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in slots[0].env
    shared = machine.local_slots(4, workers=4)
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in shared] == ["0", "1", "0", "1"]
    assert {slot.env["XLA_PYTHON_CLIENT_MEM_FRACTION"] for slot in shared} == {"0.45"}


def test_runs_on_several_accelerators_have_slots_of_so_many(monkeypatch):
    monkeypatch.setattr(machine, "accelerators", lambda: [{"CUDA_VISIBLE_DEVICES": str(i)} for i in range(5)])
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in machine.local_slots(1, devices_per_task=2)] == ["0,1", "2,3"]
    with pytest.raises(ConfigError, match="asks for 8 devices, and this machine has 5"):
        machine.local_slots(1, devices_per_task=8)
    monkeypatch.setattr(machine, "accelerators", lambda: [{}])  # a TPU
    assert len(machine.local_slots(1, devices_per_task=8)) == 1
