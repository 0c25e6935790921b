"""Several processes that train one run together, on one machine or many: every one computes with its own devices and
loads its own rows of a batch; the first writes the records.
"""

from __future__ import annotations

import os
import re
import sys

import jax
from jax.experimental import multihost_utils

from jaxgpt.errors import ConfigError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join(patience: int = 100) -> None:
    """Find the other processes of the run and wait for them; before anything asks JAX for a device.

    Slurm, TPU pods, Kubernetes and Open MPI are recognised by `jax.distributed`; elsewhere the environment says it, in
    `VARIABLES`. `patience`: seconds after which a process that says nothing counts as dead. Raises ConfigError.
    """
    address, count, number = (os.environ.get(name) for name in VARIABLES)
    try:
        jax.distributed.initialize(
            address,
            None if count is None else int(count),
            None if number is None else int(number),
            heartbeat_timeout_seconds=patience,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--processes: the others of this run are not found ({' '.join(str(error).split())}); start it with srun, "
            f"on a TPU pod or in Kubernetes, or set {', '.join(VARIABLES)}"
        ) from None


def is_first() -> bool:
    """Whether this process writes the records. True where there is no other."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def meet(place: str) -> None:
    """Wait until all processes are at this place of the program."""
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices(place)


OWN = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")
"""Statuses of this process's own faults, such as too little memory."""


def lost(error: Exception) -> bool:
    """Whether an error says that another process is gone: what the runtime raises then begins with a status."""
    status = re.match(r"([A-Z]+(_[A-Z]+)*): ", str(error))
    return jax.distributed.is_initialized() and status is not None and status[1] not in OWN


def leave(code: int) -> None:
    """End a process that failed at once. Its normal end would wait for the others, which may be gone."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Question:
    """Whether any process says yes, asked once per step and answered one question later: so the answer is the same
    everywhere, and nobody waits for it."""

    def __init__(self) -> None:
        self._asked: jax.Array | None = None
        self._alone = not jax.distributed.is_initialized()
        if self._alone:
            return
        mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(jax.sharding.AxisType.Auto,))
        self._everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("all"))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._any = jax.jit(lambda answers: answers.any(), out_shardings=whole)

    def __call__(self, mine: bool) -> bool:
        """The answer to the question before this one; alone: to this one."""
        if self._alone:
            return mine
        shards = [jax.device_put(jax.numpy.array([mine]), device) for device in jax.local_devices()]
        answers = jax.make_array_from_single_device_arrays((jax.device_count(),), self._everywhere, shards)
        before, self._asked = self._asked, self._any(answers)
        return before is not None and bool(before)
