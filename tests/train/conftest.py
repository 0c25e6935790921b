"""A small corpus, a cache of its own, and runs of a few steps."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest

from jaxgpt.train.record import Recorder
from jaxgpt.train.run import load_config

TINY = [
    "model.num_layers=2",
    "model.num_heads=2",
    "model.width=32",
    "data.corpus.type=text",
    "data.tokenizer.type=byte",
    "data.sequence_length=16",
    "data.validation_fraction=0.2",
    "train.steps=9",
    "train.batch_size=4",
    "train.log_every=1",
    "train.validate_every=5",
    "train.validation_tokens=128",
    "train.checkpoint_every=4",
    "train.tensorboard=false",
]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Ten documents of a few hundred words."""
    folder = tmp_path_factory.mktemp("corpus")
    words = ["the", "quick", "brown", "fox", "jumps", "over", "one", "lazy", "dog"]
    for number in range(10):
        text = " ".join(random.Random(number).choices(words, k=150))
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache_home, monkeypatch):
    monkeypatch.setenv("JAXGPT_CACHE", str(cache_home))


@pytest.fixture(scope="session")
def overrides(corpus):
    """`overrides("train.steps=3", ...)`: those of a tiny run, and more."""
    return lambda *more: [*TINY, f"data.corpus.path={corpus}", *more]


@pytest.fixture(scope="session")
def tiny(overrides):
    """`tiny("train.steps=3", ...)`: the configuration of a tiny run."""
    return lambda *more: load_config([], overrides(*more))


@pytest.fixture(scope="session")
def read_metrics():
    """The lines of a run's metrics.jsonl, without what a clock and the kernel measured."""

    def read(directory: Path) -> list[dict]:
        entries = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        clocked = ("seconds", "tokens_per_second", "step_seconds_", "peak_memory_bytes")
        return [{k: v for k, v in entry.items() if not k.startswith(clocked)} for entry in entries]

    return read


@pytest.fixture(scope="session")
def read_status():
    return lambda directory: json.loads((directory / "status.json").read_text())


@pytest.fixture(scope="session")
def interrupt_after():
    """`interrupt_after(monkeypatch, step)`: send this process SIGTERM once the metrics of a step are written."""

    def arrange(patch: pytest.MonkeyPatch, step: int) -> None:
        write_line = Recorder.metrics

        def write_and_stop(recorder, **entry):
            write_line(recorder, **entry)
            if entry["step"] == step and "loss" in entry:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(Recorder, "metrics", write_and_stop)

    return arrange
