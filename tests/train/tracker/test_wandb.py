"""What Weights & Biases is told: by a library that only listens, and with the real one (marked `extras`) offline."""

import importlib
import json
import struct
import sys
import types

import pytest

from jaxgpt.train.tracker.base import TrackedRun
from jaxgpt.train.tracker.wandb import WandbConfig


@pytest.fixture
def said(monkeypatch):
    """What a library that only listens was told."""
    found = []
    run = types.SimpleNamespace(
        log=lambda numbers, step: found.append((step, numbers)), finish=lambda: found.append("finish")
    )
    library = types.ModuleType("wandb")
    library.Settings = lambda **given: given
    library.init = lambda **given: found.append(given) or run
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return found


def test_it_is_told_the_run_its_settings_and_every_number(said, tmp_path):
    run = TrackedRun(tmp_path / "run", {"seed": 1}, 5)
    tracker = WandbConfig(project="p", entity="us").make(run)
    tracker.add(5, {"loss": 1.5})
    tracker.close()
    opened, *rest = said
    assert rest == [(5, {"loss": 1.5}), "finish"]
    wanted = {"project": "p", "entity": "us", "id": run.identifier, "name": "run", "config": {"seed": 1}}
    assert wanted.items() <= opened.items()
    assert (opened["mode"], opened["resume"]) == ("offline", "allow")


def test_only_the_environment_sends_anything_away(said, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    WandbConfig().make(TrackedRun(tmp_path, {}, 1))
    assert said[0]["mode"] == "online"


def records(path):
    """Those of a .wandb file: a header of seven bytes, and a log as LevelDB has it (checksum, length and kind before
    each piece: 1 is whole, 4 the last of several)."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content, place, found, pieces = path.read_bytes(), 7, [], b""
    while place < len(content):
        _, length, kind = struct.unpack_from("<IHB", content, place)
        pieces += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            found.append(messages.Record.FromString(pieces))
            pieces = b""
    return found


@pytest.mark.extras
def test_the_real_one_keeps_all_of_it_here_and_knows_the_run_again(trained_twice):
    folder, losses = trained_twice("wandb")
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    parts = [records(path) for path in files]
    identifiers = [{record.run.run_id for record in part if record.HasField("run")} for part in parts]
    assert identifiers == [{TrackedRun(folder, {}, 1).identifier}] * 2
    first, second = (
        [
            {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            for record in part
            if record.HasField("history")
        ]
        for part in parts
    )
    assert {line["_step"]: line["loss"] for line in first} == losses
    assert [(line["_step"], line["loss"]) for line in second] == [(9, losses[9])]
    assert [line["_step"] for line in first if "validation_loss" in line] == [5, 9]


@pytest.mark.extras
def test_without_a_network_training_goes_on(command, overrides, tmp_path):
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "1"}
    settings = overrides("train.trackers=[wandb]")
    run = ("-m", "jaxgpt.train", "--run-dir", str(tmp_path / "run"), "--set", *settings)
    out, err = command(*run, WANDB_MODE="online", **nobody)
    assert "9 steps, validation loss" in out
    assert err.count("wandb is left out from here on") == 1
