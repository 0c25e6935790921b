"""Runs that begin with the weights of another: their configuration, and the model they begin with."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxgpt.config import decode, encode, merge, override, parse_overrides, read_yaml
from jaxgpt.data.tokenizers.base import Tokenizer, load_tokenizer, require_same_tokenizer
from jaxgpt.errors import CheckpointError
from jaxgpt.files import write_json
from jaxgpt.models.extend import extend
from jaxgpt.nn.position.rope_scaling import ScalingConfig
from jaxgpt.train.checkpoint import Checkpoints
from jaxgpt.train.run import RunConfig, read_config
from jaxgpt.train.surgery import StartConfig, describe, transplant

M = TypeVar("M")


def continue_from(directory: Path, paths: Iterable[str | Path] = (), overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run that begins with the weights of the run in `directory`: that run's own, with YAML
    files and `PATH=VALUE` overrides on top. The key `extend`, a rope scaling such as `{type: yarn, factor: 4}`, takes
    the place of every rope's scaling in the model. `model.train_length`, from which encodings take what they were not
    told, stays that of the old weights, whatever the length of the new sequences: T5's buckets and the original length
    of a scaling mean what they meant.

    Raises ConfigError where the model has no rope to extend, CheckpointError where `directory` is no run.
    """
    old = read_config(directory)
    raw = encode(old)
    raw["start"] = encode(StartConfig(old.hash, str(directory)))
    for path in paths:
        raw = merge(raw, read_yaml(path))
    raw = override(raw, parse_overrides(overrides))
    extension = raw.pop("extend", None)
    config = decode(RunConfig, raw)
    return dataclasses.replace(config, model=extended(config.model, extension))


def extended(model: Any, extension: Any) -> Any:
    """`model` with a raw `extend` entry applied (None: none)."""
    return model if extension is None else extend(model, decode(ScalingConfig, extension, "extend"))


def starting_model(start: StartConfig, model: M, tokenizer: Tokenizer, directory: Path) -> M:
    """`model`, freshly drawn, with the weights that `start` names. What was done to each parameter is printed on
    standard error and kept in `directory/surgery.json`.

    Raises CheckpointError where the folder is not that run, the run is not at its end, or a parameter is unexplained;
    DataError where it had another tokenizer.
    """
    folder = Path(start.folder)
    old = read_config(folder)
    if old.hash != start.hash:
        raise CheckpointError(
            f"{folder}: holds the run {old.hash}, but this one begins with the weights of {start.hash}; give its "
            "folder as start.folder"
        )
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        step = checkpoints.latest()
        if step is None or step < old.train.steps:
            raise CheckpointError(f"{folder}: is at step {step or 0} of {old.train.steps}; train it to its end first")
        arrays = checkpoints.arrays("model", step)
    finally:
        checkpoints.close()
    require_same_tokenizer(load_tokenizer(folder / "tokenizer").fingerprint, tokenizer, str(folder))
    model, cuts = transplant(arrays, model, start, str(folder))
    print(describe(cuts, f"{folder} (step {step})"), file=sys.stderr, flush=True)
    parameters = [dataclasses.asdict(cut) for cut in cuts]
    write_json(directory / "surgery.json", {"run": start.hash, "step": step, "parameters": parameters})
    return model
