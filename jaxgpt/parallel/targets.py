"""Accelerators that are not here, for which a program can be compiled all the same: `tpu:v5e:4x4`, `gpu:h100:8`.

The compilers come with the extras `tpu` and `cuda` and need no device. What they answer is what they would answer
there: whether a program compiles, and what memory it takes.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgpt.errors import ConfigError, first_line, nearest
from jaxgpt.parallel.hardware import Hardware, hardware

NODE = 8
"""GPUs of one machine, which NVLink joins."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What XLA's compiler asks of an NVIDIA GPU beside its hardware (NVIDIA's data sheets and CUDA's table of compute
    capabilities)."""

    name: str  # as the driver gives it
    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    clock_ghz: float
    l2_bytes: int
    shared_bytes: int  # of a core; one block may have 1 KiB less

    def description(self, memory: int, bandwidth: float) -> str:
        """XLA's `GpuTargetConfig`, as text."""
        major, minor = self.capability
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared_bytes}
  threads_per_core_limit: 2048
  core_count: {self.cores}
  fpus_per_core: {128 if major > 8 else 64}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f}
  l2_cache_size: {self.l2_bytes}
  clock_rate_ghz: {self.clock_ghz}
  device_memory_size: {memory}
  shared_memory_per_block_optin: {self.shared_bytes - 1024}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{self.name}"
"""


MIB = 2**20
GPUS: Mapping[str, Gpu] = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 40 * MIB, 164 * 1024),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 50 * MIB, 228 * 1024),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 1.98, 50 * MIB, 228 * 1024),
    "b200": Gpu("NVIDIA B200", (10, 0), 148, 1.965, 126 * MIB, 228 * 1024),
}
TPUS: Mapping[str, tuple[str, int]] = {  # kind as JAX gives it, and dimensions of its grid
    "v5e": ("TPU v5 lite", 2),
    "v5p": ("TPU v5", 3),
    "v6e": ("TPU v6 lite", 2),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for."""

    name: str
    devices: Sequence[Any]  # as a mesh takes them
    hardware: Hardware  # of each


def find_target(name: str) -> Target:
    """The devices of a name such as `tpu:v5e:4x4` (chips as they are joined) or `gpu:h100:8`.

    Raises ConfigError for what there is not, and where the extra with the compiler is not installed.
    """
    kind, _, rest = name.partition(":")
    chip, _, shape = rest.partition(":")
    if kind not in ("tpu", "gpu"):
        raise ConfigError(f"target {name!r}: begins with tpu or gpu; for example tpu:v5e:4x4 or gpu:h100:8")
    chips = TPUS if kind == "tpu" else GPUS
    if chip not in chips:
        raise ConfigError(f"target {name!r}: there is no {kind} {chip!r}{nearest(chip, chips)}")
    return _tpu(name, chip, shape) if kind == "tpu" else _gpu(name, chip, shape)


def _tpu(name: str, chip: str, shape: str) -> Target:
    kind, dimensions = TPUS[chip]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or shape.count("x") + 1 != dimensions:
        example = "4x4" if dimensions == 2 else "2x2x4"
        raise ConfigError(f"target {name!r}: says how its chips are joined in {dimensions} dimensions, as in {example}")
    _require("libtpu", "tpu", name)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server to ask
    alone = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(map(int, shape.split("x"))) == 1 else {}
    return Target(name, _topology(name, "tpu", f"{chip}:{shape}", **alone), _hardware(kind))


def _gpu(name: str, chip: str, count: str) -> Target:
    number = int(count) if re.fullmatch(r"[1-9]\d*", count) else 0
    if not number or (number > NODE and number % NODE):
        raise ConfigError(
            f"target {name!r}: ends in a number of GPUs, of at most {NODE} or of whole machines of {NODE}"
        )
    _require("jax_plugins.xla_cuda13", "cuda", name)
    gpu = GPUS[chip]
    found = _hardware(gpu.name)
    shape = f"1x{-(-number // NODE)}x{min(number, NODE)}"
    config = gpu.description(found.memory, found.memory_bandwidth)
    return Target(name, _topology(name, "cuda", shape, topology=shape, target_config=config), found)


def _topology(name: str, platform: str, shape: str, **more: Any) -> Sequence[Any]:
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform=platform, topology_name=shape, **more).devices
    except Exception as error:  # each compiler has its own
        raise ConfigError(f"target {name!r}: its compiler does not know it ({first_line(error)})") from None


def _hardware(kind: str) -> Hardware:
    found = hardware(kind)
    assert found is not None, kind
    return found


def _require(library: str, extra: str, name: str) -> None:
    try:
        there = importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise ConfigError(f"target {name!r}: its compiler comes with the extra {extra}: pip install 'jaxgpt[{extra}]'")
