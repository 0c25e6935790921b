"""What a run's numbers depend on beside its configuration: threads, versions, processor, flags of the compiler; and the
compilation cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
from jax._src import xla_bridge

from jaxgpt.data.cache import cache_directory
from jaxgpt.errors import ConfigError
from jaxgpt.files import write_json

PACKAGES = ("jaxgpt", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece", "numpy")

# Without it a GPU sums scattered gradients (of embeddings, of experts) in whatever order its threads arrive, and the
# compiler takes whichever kernel was fastest when it tried. Autotuning must go too: what it finds is only in part kept
# in the compilation cache (openxla/xla issue 37902), and kernels differ in their rounding.
DETERMINISTIC = "--xla_gpu_deterministic_ops"
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")  # change numbers


def prepare_jax(threads: int, deterministic: bool = False) -> None:
    """Set XLA's thread-pool size, which decides the order of its sums, and turn on the compilation cache.

    deterministic: have GPUs compute the same bits whenever the same program meets the same numbers, on the same type
    of card with the same versions; slower. TPUs and CPUs do so anyway, as long as devices and threads are as many.

    Must come before JAX first touches a device: the pool's size and the flags are read then and cannot change. A
    process that runs with others already is refused with RuntimeError, because its numbers would be another run's.
    Raises ConfigError where XLA_FLAGS says the contrary.
    """
    if not xla_bridge.backends_are_initialized():
        os.environ["NPROC"] = str(threads)
    elif os.environ.get("NPROC") != str(threads):
        raise RuntimeError(
            f"JAX is already running with NPROC={os.environ.get('NPROC', 'unset')}, but the run asks for "
            f"threads={threads}: set NPROC={threads} in the environment, or start training in a process of its own"
        )
    if deterministic:
        _choose_deterministic_kernels()
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _choose_deterministic_kernels() -> None:
    """Put the flag into XLA_FLAGS, behind what the user has there."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    given = [flag for flag in flags if flag.partition("=")[0] == DETERMINISTIC]
    if given and given[-1].lower() not in (DETERMINISTIC, f"{DETERMINISTIC}=true", f"{DETERMINISTIC}=1"):
        raise ConfigError(f"train.deterministic: XLA_FLAGS has {given[-1]}; leave one of them out")
    if given:
        return
    if not xla_bridge.backends_are_initialized():
        os.environ["XLA_FLAGS"] = " ".join([*flags, f"{DETERMINISTIC}=true"])
    elif jax.default_backend() == "gpu":
        raise RuntimeError(
            f"JAX is already running without {DETERMINISTIC}=true, but the run asks for train.deterministic: put it "
            "into XLA_FLAGS, or start training in a process of its own"
        )


def describe_environment() -> dict[str, Any]:
    """Versions, platform, devices and the variables that change numbers, for `environment.json` beside a run."""
    return {
        "code": code_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "nproc": os.environ.get("NPROC"),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "matmul_precision": jax.config.values["jax_default_matmul_precision"],
        "devices": [str(device) for device in jax.devices()],
        "device_kind": ", ".join(sorted({device.device_kind for device in jax.devices()})),
    }


def record_environment(directory: Path) -> None:
    """Replace the run's `environment.json`. Where an earlier process trained it with something else, that stands below
    `earlier`, oldest first. Raises UserError where it cannot be written."""
    path, found = directory / "environment.json", describe_environment()
    earlier: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # none, or nothing that can be read
        before = json.loads(path.read_bytes())
        earlier = list(before.pop("earlier", []))
        if before != found and before not in earlier:
            earlier.append(before)
    write_json(path, {**found, "earlier": earlier} if earlier else found)


ROOMS = ("ops", "nn", "models", "data", "parallel", "train", "evaluate")
"""What computes: the code of these decides the numbers. The rest plans, starts and shows."""


@functools.cache
def code_digest() -> str:
    """A digest of the source that computes, as it lies on disk: equal where the same numbers may be expected."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def code_version() -> dict[str, str]:
    """The digest of the source that computes, and the commit where it is a git checkout, `+` where that was changed."""
    version = {"digest": code_digest()}
    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
        version["commit"] = found.stdout.strip()
    return version


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
