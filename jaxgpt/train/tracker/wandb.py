"""Weights & Biases."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from jaxgpt.errors import ConfigError, from_extra
from jaxgpt.registry import register
from jaxgpt.train.tracker.base import TrackedRun, Tracker, TrackerConfig

FINISH_SECONDS = 600
"""How long the end of a run waits for a slow network."""


@register("wandb")
@dataclasses.dataclass(frozen=True)
class WandbConfig(TrackerConfig):
    """Weights & Biases (extra `wandb`). Nothing leaves the machine unless the environment says WANDB_MODE=online:
    what the folder `wandb` of the run holds can be uploaded later, by `wandb sync RUN/wandb/offline-run-*`. A run that
    goes on writes there once more, under the same id; what it does again after a crash is dropped.
    """

    project: str = "jaxgpt"
    entity: str | None = None  # a user or a team; null: the default of whoever is logged in

    def check(self) -> None:
        _library()

    def make(self, run: TrackedRun) -> Wandb:
        return Wandb(self, run)


class Wandb(Tracker):
    def __init__(self, config: WandbConfig, run: TrackedRun):
        wandb = _library()
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            id=run.identifier,
            name=run.directory.resolve().name,
            dir=str(run.directory),
            config=dict(run.settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="create_new",  # other runs of this process are not ours to end
            settings=wandb.Settings(console="off", finish_timeout=FINISH_SECONDS),
        )

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def _library() -> Any:
    return from_extra("wandb", "wandb", "train.trackers: wandb needs", ConfigError)
