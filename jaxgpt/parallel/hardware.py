"""What accelerators can do at most, by the data sheets of who makes them."""

from __future__ import annotations

import dataclasses

GB = 10**9
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Hardware:
    """One device as JAX sees it.

    flops: per second, of dense products of bfloat16 numbers.
    memory: bytes.
    memory_bandwidth: bytes per second.
    interconnect_bandwidth: bytes per second that a device sends to others over all its links together; for GPUs over
        NVLink, so within a machine.
    """

    flops: float
    memory: int
    memory_bandwidth: float
    interconnect_bandwidth: float


# Google Cloud's pages of each TPU version and, for the links of v4, Jouppi et al. 2023 (arXiv:2304.01433); NVIDIA's
# data sheets. Interconnects that are given for both directions count half, as do rates that are given with sparsity.
_KINDS: dict[str, Hardware] = {
    "TPU v4": Hardware(275e12, 32 * GIB, 1200 * GB, 300 * GB),
    "TPU v5 lite": Hardware(197e12, 16 * GIB, 819 * GB, 200 * GB),
    "TPU v5": Hardware(459e12, 95 * GIB, 2765 * GB, 600 * GB),
    "TPU v6 lite": Hardware(918e12, 32 * GIB, 1638 * GB, 400 * GB),
    "NVIDIA A100-SXM4-40GB": Hardware(312e12, 40 * GIB, 1555 * GB, 300 * GB),
    "NVIDIA A100-SXM4-80GB": Hardware(312e12, 80 * GIB, 2039 * GB, 300 * GB),
    "NVIDIA A100 80GB PCIe": Hardware(312e12, 80 * GIB, 1935 * GB, 300 * GB),
    "NVIDIA H100 80GB HBM3": Hardware(989e12, 80 * GIB, 3352 * GB, 450 * GB),
    "NVIDIA H100 PCIe": Hardware(756e12, 80 * GIB, 2000 * GB, 300 * GB),
    "NVIDIA H200": Hardware(989e12, 141 * GB, 4800 * GB, 450 * GB),
    "NVIDIA B200": Hardware(2250e12, 180 * GB, 7700 * GB, 900 * GB),
}
_OTHER_NAMES = {"TPU v5e": "TPU v5 lite", "TPU v5p": "TPU v5", "TPU v6e": "TPU v6 lite"}


def hardware(device_kind: str) -> Hardware | None:
    """What is known of a device with exactly this `device_kind`; None: nothing (CPUs, parts of a GPU, and what is newer
    than this table)."""
    return _KINDS.get(_OTHER_NAMES.get(device_kind, device_kind))


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 FLOP/s of such a device; None where that is not known."""
    found = hardware(device_kind)
    return None if found is None else found.flops
