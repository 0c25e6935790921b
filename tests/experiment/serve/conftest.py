"""A store of run folders made by hand, a server on it, and a browser to look at it."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxgpt.experiment.serve import Server

PERPLEXITY = {"rope": 3.2, "alibi": 3.3, "yarn": 3.25, "5-gram": 3.6}


class Shelf:
    """Run folders below `root`."""

    def __init__(self, root: Path):
        self.root = root

    def run(
        self,
        variant: str = "rope",
        seed: int = 0,
        lines: int = 20,
        state: str = "finished",
        experiment: str = "trial",
        kind: str = "model",
        evaluated: tuple[str, ...] = (),
        **settings: Any,
    ) -> Path:
        """A run with a curve of `lines` lines, a validation loss every fifth, and evaluations of these variants."""
        folder = self.root / experiment / f"{variant}-seed{seed}-{len(settings)}abc"
        folder.mkdir(parents=True)
        config = {
            "seed": seed,
            "model": {"position": {"type": variant}, "width": 32},
            "train": {"steps": 10 * lines, "learning_rate": 0.01, **settings},
        }
        wanted = [
            {"hash": f"{one}-hash", "variant": one, "length": 32, "model": {"position": {"type": one}, "width": 32}}
            for one in evaluated
        ]
        request = {"kind": kind, "experiment": experiment, "variant": variant, "seed": seed, "config": config}
        write(folder / "request.json", {**request, "evaluations": wanted})
        write(folder / "status.json", {"state": state, "step": 10 * lines, "steps": 10 * lines, "message": None})
        write(folder / "environment.json", {"python": "3.11", "packages": {"jax": "0.10"}})
        write(folder / "evaluation.json", {one["hash"]: measured(one["variant"], seed) for one in wanted})
        (folder / "log.txt").write_text("began\nended\n")
        with (folder / "metrics.jsonl").open("w") as file:
            for text in curve(lines, seed, PERPLEXITY.get(variant, 3.4)):
                file.write(text)
        return folder


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def line(step: int, loss: float, **more: Any) -> str:
    seconds = {"seconds": step / 10, "tokens_per_second": 1280}
    return json.dumps({"step": step, "tokens": 128 * step, "loss": loss, **seconds, **more}) + "\n"


def curve(lines: int, seed: int, end: float) -> Iterator[str]:
    random = np.random.default_rng(seed)
    for number in range(1, lines + 1):
        step = 10 * number
        loss = end + 3 * math.exp(-6 * number / lines) + float(random.normal(0, 0.03)) + 0.02 * seed
        yield line(step, loss)
        if number % max(1, lines // 5) == 0:
            yield json.dumps({"step": step, "tokens": 128 * step, "validation_loss": loss + 0.05}) + "\n"


def measured(variant: str, seed: int) -> dict[str, Any]:
    found = []
    for context in (8, 32, 128):
        value = PERPLEXITY.get(variant, 3.4) + 0.01 * seed + 0.0005 * context
        found.append({"metric": "fixed_target_nll", "context": context, "value": value, "unit": "nats/token"})
    return {"hash": f"{variant}-hash", "variant": variant, "measurements": found, "seconds": 1.5}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "runs")


@pytest.fixture
def full(shelf: Shelf) -> Shelf:
    """Two variants with three seeds, one that is evaluated with another's weights, a baseline, a report."""
    shelf.run("5-gram", kind="baseline", lines=0, evaluated=("5-gram",))
    for seed in range(3):
        shelf.run("rope", seed, evaluated=("rope", "yarn"))
        shelf.run("alibi", seed, evaluated=("alibi",))
    report = shelf.root / "trial" / "report"
    report.mkdir()
    (report / "index.html").write_text("<h1>the report</h1>")
    about = {"title": "RoPE or ALiBi?", "variants": ["alibi", "rope", "yarn"], "labels": {"rope": "RoPE"}}
    write(report / "about.json", about)
    return shelf


class Asked:
    """An answer of a server."""

    def __init__(self, answer: http.client.HTTPResponse):
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    def json(self) -> Any:
        return json.loads(self.body)


class Visitor:
    """Asks a server, as no browser would if need be."""

    def __init__(self, server: Server):
        self.server = server

    def __call__(self, path: str, method: str = "GET", **headers: str) -> Asked:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            return Asked(connection.getresponse())
        finally:
            connection.close()


@pytest.fixture
def visit(shelf: Shelf) -> Iterator[Visitor]:
    """A server on the shelf, ready to be asked."""
    shelf.root.mkdir(exist_ok=True)
    with Server(shelf.root, port=0, refresh=0.2) as server:
        yield Visitor(server)
