"""Names of targets: what is wrong with one is said before anything is compiled."""

import importlib.util

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.parallel import targets
from jaxgpt.parallel.hardware import hardware
from jaxgpt.parallel.targets import GPUS, TPUS, find_target


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h100:8", "begins with tpu or gpu"),
        ("gpu:h10:8", "no gpu 'h10'; did you mean 'h100'"),
        ("tpu:v5:4x4", "no tpu 'v5'; did you mean 'v5"),
        ("tpu:v5e:16", "2 dimensions, as in 4x4"),
        ("tpu:v5p:4x4", "3 dimensions, as in 2x2x4"),
        ("tpu:v5e:0x4", "2 dimensions"),
        ("gpu:h100", "ends in a number of GPUs"),
        ("gpu:h100:0", "ends in a number of GPUs"),
        ("gpu:h100:12", "whole machines of 8"),
    ],
)
def test_what_there_is_not_is_named(name, message):
    with pytest.raises(ConfigError, match=message):
        find_target(name)


@pytest.mark.parametrize(("name", "extra"), [("tpu:v5e:4x4", "tpu"), ("gpu:h100:8", "cuda")])
def test_without_its_compiler_the_extra_is_named(name, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"the extra {extra}: pip install 'jaxgpt\[{extra}\]'"):
        find_target(name)


def test_the_speed_of_every_target_is_known():
    for kind in [*(kind for kind, _ in TPUS.values()), *(gpu.name for gpu in GPUS.values())]:
        known = hardware(kind)
        assert known is not None
        assert min(known.flops, known.memory, known.memory_bandwidth, known.interconnect_bandwidth) > 0


def test_a_gpu_is_described_to_its_compiler():
    text = GPUS["h100"].description(80 * 2**30, 3352e9)
    assert "cuda_compute_capability { major: 9 minor: 0 }" in text
    assert "device_memory_size: 85899345920" in text
    assert 'device_description_str: "NVIDIA H100 80GB HBM3"' in text
    assert targets.NODE == 8
