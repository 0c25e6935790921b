"""What this machine has, and how it is divided into slots."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxgpt.errors import ConfigError
from jaxgpt.launch.task import Slot

GIB = 2**30
LARGE_PAGES = "glibc.malloc.hugetlb=1"  # the allocator asks for transparent huge pages


def affinity() -> list[int]:
    """The cores this process may run on."""
    return sorted(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """The cores this process may use: its affinity, cut to the container's quota."""
    mine = affinity()
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        mine = mine[: max(1, math.ceil(int(quota) / int(period)))]
    except (OSError, ValueError):  # no cgroup, or "max": no quota
        pass
    return mine


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that new processes can have: what the system says is free, cut to the container's limit. None: unknown."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError):
        pass
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        # What the kernel caches of files counts as used but is given back when needed.
        cache = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines()).get("inactive_file", 0)
        found.append(max(0, limit - used + int(cache)))
    except (OSError, ValueError):
        pass
    return min(found) if found else None


def has_cuda_plugin() -> bool:
    """Whether JAX can use NVIDIA's cards: it comes without, and then runs on the CPU whatever the machine has."""
    plugins = importlib.util.find_spec("jax_plugins")
    places = (plugins.submodule_search_locations or []) if plugins else []
    return any("cuda" in module.name for module in pkgutil.iter_modules(list(places)))


def accelerators(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev"), cuda: bool | None = None
) -> list[dict[str, str]]:
    """One environment per accelerator slot, empty on a machine with CPUs only. Asks the system, not JAX: importing it
    here would occupy the devices. A TPU serves one process at a time, so all its chips are one slot. `cuda` says
    whether JAX has its plugin for NVIDIA's cards; None looks."""
    platforms = environment.get("JAX_PLATFORMS", "").split(",")
    if platforms[0] == "cpu":
        return []
    if has_cuda_plugin() if cuda is None else cuda:
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return [{"CUDA_VISIBLE_DEVICES": number.strip()} for number in visible.split(",") if number.strip()]
        cards = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
        if cards:
            return [{"CUDA_VISIBLE_DEVICES": number} for number in sorted(cards, key=int)]
    if "tpu" in platforms or any(devices.glob("accel[0-9]*")):
        return [{}]
    return []


def thread_environment(threads: int) -> dict[str, str]:
    """Environment that gives a process `threads` threads. NPROC sizes XLA's pool, on which the results' last bits
    depend; the rest keeps libraries from starting one thread per core in every process. Large pages change no result:
    XLA takes its temporary memory anew every step, and touching it in small pages is a tenth of a small model's step.
    """
    count = str(threads)
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        tunables = f"{tunables}:{LARGE_PAGES}".lstrip(":")
    return {**dict.fromkeys(names, count), "GLIBC_TUNABLES": tunables}


def as_a_worker(main: Callable[[], int]) -> int:
    """Run a program in the environment that workers have, with as many threads as its `--threads N` says, else as there
    are cores: it is started again for that, because a process reads the environment when it starts. The exit code."""
    if "JAXGPT_BENCHMARK" in os.environ:
        return main()
    threads = next((after for flag, after in itertools.pairwise(sys.argv) if flag == "--threads"), None)
    count = int(threads) if threads and threads.isdigit() else len(cores())
    os.environ.update(thread_environment(count), JAXGPT_BENCHMARK="1")
    return os.execv(sys.executable, [sys.executable, *sys.argv])


def _grouped(devices: list[dict[str, str]], size: int) -> list[dict[str, str]]:
    """Environments of groups of accelerators; those that fill no group are left out. A TPU's chips are one already."""
    if size == 1 or not all("CUDA_VISIBLE_DEVICES" in device for device in devices):
        return devices
    if devices and len(devices) < size:
        raise ConfigError(f"train.mesh: asks for {size} devices, and this machine has {len(devices)}")
    numbers = [device["CUDA_VISIBLE_DEVICES"] for device in devices]
    groups = [numbers[i : i + size] for i in range(0, len(numbers) - size + 1, size)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]


def local_slots(
    threads: int, workers: int | None = None, memory_per_task: int = GIB, devices_per_task: int = 1
) -> list[Slot]:
    """As many slots as fit: one for every `devices_per_task` accelerators, else cores over threads, cut to the memory
    at hand.

    `workers` overrides the number. Cores are pinned when the slots fill the machine exactly (two pinned single-core
    processes beat one two-core process); with fewer, the system's scheduler may have another launcher to serve, and
    under a quota other containers run on the same cores. Workers that share a GPU share its memory, too.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: expected a number of processes, 1 or more")
    env = thread_environment(threads)
    devices = _grouped(accelerators(), devices_per_task)
    if devices:
        count = workers or len(devices)
        if count > len(devices):  # each process would claim three quarters of its card
            env["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / math.ceil(count / len(devices)):.2f}"
        return [Slot({**env, **devices[i % len(devices)]}) for i in range(count)]
    mine = cores()
    count = workers or max(1, len(mine) // threads)
    memory = available_memory()
    if workers is None and memory is not None:
        count = max(1, min(count, memory // memory_per_task))
    pinned = count > 1 and count * threads == len(mine) == len(affinity())
    return [Slot(env, tuple(mine[i * threads : (i + 1) * threads]) if pinned else ()) for i in range(count)]
