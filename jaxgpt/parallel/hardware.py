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


# Google Cloud's pages of each TPU version, whose interconnect counts both directions; NVIDIA's data sheets.
_KINDS: dict[str, Hardware] = {
    "TPU v5 lite": Hardware(197e12, 16 * GIB, 819 * GB, 100 * GB),
    "TPU v5": Hardware(459e12, 95 * GIB, 2765 * GB, 300 * GB),
    "TPU v6 lite": Hardware(918e12, 32 * GIB, 1640 * GB, 224 * GB),
    "NVIDIA A100": Hardware(312e12, 80 * GIB, 2039 * GB, 300 * GB),
    "NVIDIA H100": Hardware(989e12, 80 * GIB, 3352 * GB, 450 * GB),
    "NVIDIA H200": Hardware(989e12, 141 * GB, 4800 * GB, 450 * GB),
    "NVIDIA B200": Hardware(2250e12, 180 * GB, 7700 * GB, 900 * GB),
}
_OTHER_NAMES = {"TPU v5e": "TPU v5 lite", "TPU v5p": "TPU v5", "TPU v6e": "TPU v6 lite"}


def hardware(device_kind: str) -> Hardware | None:
    """What is known of a device with such a `device_kind`; None: nothing (CPUs, and what is newer than this table)."""
    name = _OTHER_NAMES.get(device_kind, device_kind)
    if name in _KINDS:
        return _KINDS[name]
    return next((found for kind, found in _KINDS.items() if kind.startswith("NVIDIA") and name.startswith(kind)), None)
