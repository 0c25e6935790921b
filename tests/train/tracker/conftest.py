"""Runs in processes of their own, where the real libraries find the environment they read when they are imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command("-m", "jaxgpt.train", ..., NAME=VALUE)`: run Python, which must succeed; (standard output, error)."""

    def run(*arguments: str, **environment: str) -> tuple[str, str]:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TRACKIO_DIR": str(tmp_path / "trackio"), **environment}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    monkeypatch.delenv("WANDB_MODE", raising=False)
    return run


@pytest.fixture
def trained_twice(command, overrides, tmp_path):
    """`trained_twice(tracker)`: the folder of a run of nine steps that lost its last checkpoint and went on from step
    8, and its losses by step."""

    def train(tracker: str):
        folder = tmp_path / "run"
        for _ in range(2):
            shutil.rmtree(folder / "checkpoints" / "9", ignore_errors=True)
            settings = overrides(f"train.trackers=[{tracker}]")
            out, err = command("-m", "jaxgpt.train", "--run-dir", str(folder), "--set", *settings)
            assert out.startswith(f"{folder}: 9 steps"), "what trackers say goes elsewhere"
            assert "left out" not in err
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return folder, {line["step"]: line["loss"] for line in lines if "loss" in line}

    return train
