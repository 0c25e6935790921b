"""What a run's train step asks of accelerators that are not here: compiled for them, and read from the result."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgpt.errors import ConfigError, first_line
from jaxgpt.nn.params import flatten, unflatten
from jaxgpt.parallel.flops import matrix_flops
from jaxgpt.parallel.hardware import Hardware
from jaxgpt.parallel.mesh import MeshConfig
from jaxgpt.parallel.program import Traffic, traffic
from jaxgpt.parallel.targets import Target
from jaxgpt.train.devices import OnMesh
from jaxgpt.train.functions import functions_of
from jaxgpt.train.run import RunConfig
from jaxgpt.train.step import Batch

RESERVED = 0.06
"""Share of a device's memory that the runtime keeps for itself: of 16 GB a TPU v5e leaves programs 15.75 GiB less
what the collectives take, and CUDA's context and libraries take some hundred MB of a GPU."""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A step on a target. Memory, traffic and `flops` are those of one device.

    memory: bytes by kind. What is computed in place is counted once.
    flops: of matrix products, what is computed again included.
    model_flops: by the model's own count.
    least: bytes to other devices that no way of dividing the parameters so could do without; None: not known.
    refused: what the compiler said where the program does not fit.
    """

    mesh: MeshConfig
    hardware: Hardware
    memory: Mapping[str, int]
    flops: float
    model_flops: float
    traffic: Traffic
    least: float | None
    refused: str = ""

    @property
    def bytes(self) -> int:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return not self.refused and self.bytes <= (1 - RESERVED) * self.hardware.memory

    @property
    def sent(self) -> float:
        return sum(self.traffic.sent.values())

    @property
    def seconds(self) -> dict[str, float]:
        """Of each of the three things a step does, were there nothing else (Williams et al. 2009, the roofline)."""
        return {
            "compute": self.flops / self.hardware.flops,
            "memory": self.traffic.memory / self.hardware.memory_bandwidth,
            "network": self.sent / self.hardware.interconnect_bandwidth,
        }

    @property
    def bound(self) -> str:
        """Which of them takes longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def roofline(self) -> float:
        """Seconds of a step, were all three done at once and at full speed: no step is faster."""
        return max(self.seconds.values())

    @property
    def share(self) -> float:
        """Model FLOPs over what the devices could do in that time: an upper bound of what can be reached."""
        return self.model_flops / (self.roofline * self.hardware.flops)


def forecast(config: RunConfig, target: Target) -> Forecast:
    """Compile the train step of a run for a target.

    Without `train.mesh` parameters and rows are divided among all devices (`fsdp`); copies (`train.compile: pmap`) are
    a mesh of copies. Raises ConfigError where mesh, rows and devices do not fit together.
    """
    mesh = _mesh(config, len(target.devices))
    train = dataclasses.replace(config.train, mesh=mesh, compile="jit")
    config = dataclasses.replace(config, train=train)
    devices = OnMesh(mesh.make(target.devices), train.batch_size)
    vocab_size = config.model.vocab_size or config.data.prepare().tokenizer.vocab_size
    functions = functions_of(config, vocab_size, packed=getattr(config.data, "packing", "") == "documents")
    like = jax.eval_shape(functions.init)
    places = flatten(devices.places(like))
    leaves = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[name])
        for name, leaf in flatten(like).items()
    }
    state, batch = unflatten(like, leaves), _batch(config, devices)
    traced = devices.step(functions.step, like).trace(state, batch)
    flops = matrix_flops(traced.jaxpr) / len(target.devices)
    model = (
        functions.model.flops_per_token(config.data.sequence_length) * train.batch_size * config.data.sequence_length
    )
    held = _held(leaves, batch)
    shared = {"mesh": mesh, "hardware": target.hardware, "flops": flops, "model_flops": model / len(target.devices)}
    try:
        compiled = traced.lower().compile()
    except Exception as error:  # each compiler has its own
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise ConfigError(f"target {target.name}: does not compile ({first_line(error)})") from None
        return Forecast(memory=held, traffic=Traffic({}, 0.0), least=None, refused=_reason(str(error)), **shared)
    found = compiled.memory_analysis()
    beyond = max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
    memory = {**held, "temporary": found.temp_size_in_bytes + beyond, "program": found.generated_code_size_in_bytes}
    text = compiled.as_text()
    assert text is not None
    return Forecast(memory=memory, traffic=traffic(text), least=_least(leaves, config, mesh), **shared)


def _mesh(config: RunConfig, count: int) -> MeshConfig:
    if config.train.mesh is not None:
        return config.train.mesh
    copies = config.train.compile == "pmap"
    rows = config.train.batch_size // config.train.accumulation
    if rows % count:
        raise ConfigError(
            f"train.mesh: not given, and {count} devices cannot share {rows} rows (batch_size / accumulation) evenly; "
            f"give {'' if copies else 'a mesh, or '}another batch size"
        )
    return MeshConfig(data=count) if copies else MeshConfig(fsdp=count)


def _batch(config: RunConfig, devices: OnMesh) -> Batch:
    shape = config.train.batch_size, config.data.sequence_length
    kinds = {"inputs": jnp.int32, "targets": jnp.int32, "segment": jnp.int32, "weights": jnp.float32}
    return {name: jax.ShapeDtypeStruct(shape, kind, sharding=devices.layout.batch) for name, kind in kinds.items()}


def _held(leaves: Mapping[str, Any], batch: Batch) -> dict[str, int]:
    """Bytes on a device of what a step is given, by kind."""
    kinds = {"parameters": ("model/",), "optimizer": ("optimizer/",), "average": ("average/",)}
    held = {
        kind: sum(_bytes(leaf) for name, leaf in leaves.items() if name.startswith(begins))
        for kind, begins in kinds.items()
    }
    held["batch"] = sum(_bytes(leaf) for leaf in batch.values())
    return {kind: size for kind, size in held.items() if size}


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize


def _least(leaves: Mapping[str, Any], config: RunConfig, mesh: MeshConfig) -> float | None:
    """Bytes that each device must send where parameters are divided along `fsdp` and copied along `data`: parameters
    are gathered twice, for the forward and the backward pass, in the type of the computation, gradients summed once, in
    float32, where their parts lie (Rajbhandari et al. 2020, arXiv:1910.02054, section 7.2), and among copies."""
    if mesh.expert * mesh.context * mesh.tensor > 1:
        return None
    divided = copied = 0.0
    for name, leaf in leaves.items():
        if name.startswith("model/"):
            parts = math.prod(leaf.shape) // math.prod(leaf.sharding.shard_shape(leaf.shape))
            size = math.prod(leaf.shape)
            divided, copied = (divided + size, copied) if parts > 1 else (divided, copied + size)
    compute = jnp.dtype(getattr(config.model, "compute_dtype", "float32")).itemsize
    along, among = (mesh.fsdp - 1) / mesh.fsdp, (mesh.data - 1) / mesh.data
    everywhere = 2 * 4 * copied * (mesh.rows - 1) / mesh.rows
    return divided * along * (2 * compute + 4) + 2 * 4 * divided / mesh.fsdp * among + everywhere


def _reason(text: str) -> str:
    used = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", text)
    if used:
        return f"uses {used[1]} of {used[2]}"
    alone = re.search(r"temporaries \(([\d.]+\w)\) exceeds", text)
    return f"temporaries alone take {alone[1]}" if alone else first_line(ValueError(text))[:120]
