"""What is the same for all trackers: who a run is, and that a copy which fails costs nothing but itself."""

import re
import sys

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.registry import kinds
from jaxgpt.train.loop import train
from jaxgpt.train.run import TrainConfig
from jaxgpt.train.tracker.base import TrackedRun, TrackerConfig, Trackers
from jaxgpt.train.tracker.tensorboard import TensorBoardConfig
from jaxgpt.train.tracker.trackio import TrackioConfig
from jaxgpt.train.tracker.wandb import WandbConfig


def identifier(path):
    return TrackedRun(path, {}, 1).identifier


def test_a_run_is_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "rope+yarn, seed 0"
    assert re.fullmatch(r"rope-yarn--seed-0-[0-9a-f]{8}", identifier(folder))
    monkeypatch.chdir(tmp_path)
    assert identifier(folder.relative_to(tmp_path)) == identifier(folder)
    assert identifier(tmp_path / "other" / folder.name) != identifier(folder)
    assert len(identifier(tmp_path / ("x" * 250))) < 128, "the longest that wandb takes"


def test_each_tracker_is_there_once():
    assert TrainConfig().all_trackers == (TensorBoardConfig(),)
    assert TrainConfig(tensorboard=False).all_trackers == ()
    twice = TrainConfig(trackers=(WandbConfig(), TensorBoardConfig(), WandbConfig(), WandbConfig(project="other")))
    assert twice.all_trackers == (TensorBoardConfig(), WandbConfig(), WandbConfig(project="other"))


def test_the_others_go_on_when_one_fails(tmp_path, monkeypatch, caplog):
    def fails(self, run):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(WandbConfig, "make", fails)
    trackers = Trackers([WandbConfig(), TensorBoardConfig()], TrackedRun(tmp_path, {}, 1))
    trackers.add(1, {"loss": 1.5})
    trackers.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: wandb is left out from here on (no network)"
    ]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize("config", [WandbConfig(), TrackioConfig()])
def test_a_missing_library_is_named_before_anything_runs(config, tiny, tmp_path, monkeypatch, read_status):
    (name,) = (kind for kind, found in kinds(TrackerConfig).items() if found is type(config))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"train\.trackers: {name} needs the extra {name}: pip install 'jaxgpt\["):
        train(tiny(f"train.trackers=[{name}]"), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "status.json"}
    assert read_status(tmp_path / "run")["state"] == "failed"
