"""What a run's numbers depend on beside its configuration: threads, versions, processor; and the compilation cache."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import jax
from jax._src import xla_bridge

from jaxgpt.data.cache import cache_directory

PACKAGES = ("jaxgpt", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece", "numpy")


def prepare_jax(threads: int) -> None:
    """Set XLA's thread-pool size, which decides the order of its sums, and turn on the compilation cache.

    Must come before JAX first touches a device: the pool's size is read then and cannot change. A process whose pool
    has another size already is refused with RuntimeError, because its numbers would be another run's.
    """
    if not xla_bridge.backends_are_initialized():
        os.environ["NPROC"] = str(threads)
    elif os.environ.get("NPROC") != str(threads):
        raise RuntimeError(
            f"JAX is already running with NPROC={os.environ.get('NPROC', 'unset')}, but the run asks for "
            f"threads={threads}: set NPROC={threads} in the environment, or start training in a process of its own"
        )
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def describe_environment() -> dict[str, Any]:
    """Versions, platform and devices, for `environment.json` beside a run."""
    return {
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "nproc": os.environ.get("NPROC"),
        "devices": [str(device) for device in jax.devices()],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
