"""Trains the same tiny model on different meshes of eight pretended devices, and prints what came of it as JSON."""

import contextlib
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax

from jaxgpt.config import decode, merge
from jaxgpt.errors import Interrupted
from jaxgpt.nn.params import flatten
from jaxgpt.parallel.mesh import MeshConfig
from jaxgpt.train import loop
from jaxgpt.train.loop import train
from jaxgpt.train.run import RunConfig

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)
MESHES = {
    "none": None,
    "data": {"data": 8},
    "fsdp": {"fsdp": 8},
    "tensor": {"data": 2, "tensor": 4},
    "cube": {"data": 2, "fsdp": 2, "tensor": 2},
    "expert": {"data": 2, "expert": 4},
    "all": {"fsdp": 2, "tensor": 2, "expert": 2},
    "context": {"context": 8},
    "long": {"data": 2, "context": 2, "tensor": 2},
}
WAYS = {name: {"mesh": mesh} for name, mesh in MESHES.items()} | {"pmap": {"compile": "pmap"}}


def run(folder, changes, way, steps):
    """Losses by step, the validation loss, and where the experts' and the heads' matrices lie."""
    raw = json.loads((folder / "config.json").read_text())
    raw = merge(merge(raw, changes), {"train": {**way, "steps": steps}})
    config = decode(RunConfig, raw)
    place = folder / f"run-{config.hash}-{steps}"
    result = train(config, place)
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    layers = place / "layers.jsonl"
    specs = {
        name: str(leaf.sharding.spec) if way.get("mesh") else ""
        for name, leaf in flatten(result.model).items()
        if name.endswith(("experts/up", "mixer/query"))
    }
    return {
        "hash": config.hash,
        "losses": [line["loss"] for line in lines if "loss" in line],
        "layers": json.loads(layers.read_text().splitlines()[-1]) if layers.exists() else {},
        "validation": result.validation_loss,
        "specs": specs,
        "norms": {name: float((leaf**2).sum()) for name, leaf in flatten(result.model).items()},
    }


def main(folder):
    found = {}
    cases = json.loads((folder / "cases.json").read_text())
    for kind, (changes, ways, steps) in cases.items():
        for name in ways:
            found[f"{kind} {name}"] = run(folder, changes, WAYS[name], steps)
            for left in folder.glob("run-*"):  # a mesh changes no hash: one folder for all
                shutil.rmtree(left)
    model = cases["dropless"][0]["model"]
    raw = json.loads((folder / "config.json").read_text())
    started = decode(RunConfig, merge(raw, {"model": model, "train": {"mesh": MESHES["expert"], "steps": 6}}))
    asked = iter([False, False, True, *[False] * 9])
    kept, loop.interruptible = loop.interruptible, lambda: loop.contextlib.nullcontext(lambda: next(asked))
    with contextlib.suppress(Interrupted):
        train(started, folder / "moved")
    loop.interruptible = kept
    moved = dataclasses.replace(started, train=dataclasses.replace(started.train, mesh=MeshConfig(fsdp=8)))
    result = train(moved, folder / "moved")
    found["moved"] = {"norms": {name: float((leaf**2).sum()) for name, leaf in flatten(result.model).items()}}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
