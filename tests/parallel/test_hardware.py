"""Accelerators are found by the exact names that JAX has for them."""

import jax
import pytest

from jaxgpt.parallel.hardware import hardware, peak_flops

KNOWN = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_known_kind_has_its_vendors_figures_in_the_units_they_say(kind):
    """A factor of a thousand, or bits for bytes, would leave these ranges."""
    assert peak_flops(kind) == KNOWN[kind]
    found = hardware(kind)
    assert found is not None
    assert 1e10 < found.memory < 1e12
    assert 5e11 < found.memory_bandwidth < 2e13
    assert 1e11 < found.interconnect_bandwidth < found.memory_bandwidth


def test_links_count_one_direction():
    """Google Cloud gives 400 GB/s to v5e in both together, NVIDIA 900 GB/s to the H100."""
    v5e, h100 = hardware("TPU v5 lite"), hardware("NVIDIA H100 80GB HBM3")
    assert v5e is not None
    assert h100 is not None
    assert (v5e.interconnect_bandwidth, h100.interconnect_bandwidth) == (200e9, 450e9)


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "NVIDIA GH200 480GB", "TPU v99", ""])
def test_what_is_not_known_is_none_and_not_a_guess(kind):
    assert hardware(kind) is None
    assert peak_flops(kind) is None


def test_this_machine_is_a_cpu():
    assert peak_flops(jax.devices("cpu")[0].device_kind) is None
