"""Experiments whose base says `{"from": FOLDER}`: what a checkpoint, of transformers or of an earlier run, decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgpt.config import merge
from jaxgpt.data.dataset import DataConfig
from jaxgpt.errors import ConfigError
from jaxgpt.experiment.matching import Match
from jaxgpt.experiment.spec import Variant
from jaxgpt.registry import lookup
from jaxgpt.train.start import base_of, require_tokenizer


@dataclasses.dataclass(frozen=True)
class Given:
    """The model, the tokenizer and L of a checkpoint as a layer of configuration, and the weights to begin with."""

    folder: Path
    layer: Mapping[str, Any]
    start: Mapping[str, Any]

    def below(self, defaults: Mapping[str, Any], kind: str, base: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults with what the folder decides, for data of a kind. `base`: what the experiment says on top of it.

        Raises ConfigError where nobody names the tokenizer.
        """
        known = {field.name for field in dataclasses.fields(lookup(DataConfig, kind, "data.type"))}
        layer = {name: value for name, value in self.layer["data"].items() if name in known}
        layer["type"] = kind
        own = base.get("data", {})
        require_tokenizer(self.folder, {**layer, **(own if isinstance(own, Mapping) else {}), "type": kind})
        return {**defaults, **self.layer, "data": merge(defaults["data"], layer)}

    @property
    def data_kind(self) -> str:
        """The kind of data that the folder was trained on, as far as it is known."""
        return self.layer["data"].get("type", "text")

    def begin(self, raw: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
        """The configuration of a variant without a parent: it begins with the weights, and keeps them as they are
        unless it says something of training."""
        begun = merge(raw, {"start": {**self.start, **variant.overrides.get("start", {})}})
        return begun if variant.trains_further else merge(begun, {"train": {"steps": 0}})


def given_by(folder: Path | None, match: Match | None) -> Given | None:
    """What a folder decides, None where there is none.

    Raises ConfigError where the arms are to be made equally large, CheckpointError and ConversionError where the folder
    holds nothing that can be loaded.
    """
    if folder is None:
        return None
    if match is not None:
        raise ConfigError(f"match(): {match} cannot be matched where base() has `from`: the weights have their size")
    layer = base_of(folder)
    start = layer.pop("start")
    return Given(folder, layer, start)
