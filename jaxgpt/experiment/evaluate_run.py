"""Evaluates one trained run, as it is or with its rope scaled anew, and trains nothing:

    python experiments/evaluate.py --run RUN_DIR --set extend.type=yarn extend.factor=4

prints perplexity by context. Nothing is written. `--checkpoint best` evaluates the weights with the lowest validation
loss, where the run kept them (`train.keep_best`).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxgpt.config import decode, encode, override, parse_overrides
from jaxgpt.errors import ConfigError, exit_code, nearest

if TYPE_CHECKING:
    from jaxgpt.evaluate.protocols.base import Measurement

SECTIONS = ("model", "evaluate", "extend")


def measure(
    directory: Path, overrides: Sequence[str] = (), length: int | None = None, checkpoint: int | str = "last"
) -> tuple[list[Measurement], int]:
    """Measurements of the weights of a run, and L.

    Args:
      overrides: `PATH=VALUE` in the sections model (what changes no parameter), evaluate and extend (the scaling that
        takes the place of every rope's own).
      length: L, of which contexts are multiples; None is the run's own training length.
      checkpoint: which weights: `last`, `best` or a step, see `load_model`.

    Raises:
      CheckpointError: the folder is no run, has no such checkpoint, or its weights do not fit the model.
      ConfigError: an override is wrong, or the model has no rope to extend.
      DataError: the text is too little, or no longer has the run's tokenizer.
    """
    from jaxgpt.data.tokenizers.base import require_same_tokenizer
    from jaxgpt.evaluate.config import EvaluationConfig, default_evaluation
    from jaxgpt.evaluate.measure import check, evaluate
    from jaxgpt.evaluate.scorer import model_scorer
    from jaxgpt.models.base import ModelConfig
    from jaxgpt.train.environment import prepare_jax
    from jaxgpt.train.run import read_config
    from jaxgpt.train.start import extended, load_model

    config = read_config(directory)
    raw = {"model": encode(config.model), "evaluate": encode(default_evaluation(type(config.data)))}
    raw = override(raw, parse_overrides(overrides))
    for section in raw:
        if section not in SECTIONS:
            raise ConfigError(f"--set {section}: cannot change what is trained{nearest(section, SECTIONS)}")
    evaluation = decode(EvaluationConfig, raw["evaluate"], "evaluate")
    wanted = extended(decode(ModelConfig, raw["model"], "model"), raw.get("extend"))
    prepare_jax(config.threads, config.train.deterministic)
    dataset = config.data.prepare()
    length = length or config.data.reference_length
    check(evaluation, dataset, length)
    model, tokenizer = load_model(directory, wanted, checkpoint)
    require_same_tokenizer(tokenizer.fingerprint, dataset.tokenizer, str(directory))
    return evaluate(model_scorer(model), evaluation, dataset, length), length


def table(measurements: Sequence[Measurement], length: int) -> Table:
    """Perplexity by context of every protocol measured, and any other metric under its own name; a row per metric.
    The loss of single positions is left out."""
    shown = [one for one in measurements if not one.metric.startswith("position")]
    contexts = sorted({one.context for one in shown})
    made = Table(title=f"perplexity by context, L = {length}", title_justify="left")
    made.add_column("protocol")
    for context in contexts:
        made.add_column(f"{context}" + (" = L" if context == length else ""), justify="right")
    for metric in dict.fromkeys(one.metric for one in shown):
        values = {one.context: one.value for one in shown if one.metric == metric}
        name = metric.removesuffix("_nll").replace("_", " ")
        if metric.endswith("_nll"):
            values = {context: math.exp(min(value, 700.0)) for context, value in values.items()}
        cells = [f"{values[context]:.4g}" if context in values else "-" for context in contexts]
        made.add_row(Text(name), *map(Text, cells))
    return made


def main(arguments: Sequence[str]) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python experiments/evaluate.py", description="Evaluate a trained run, as it is or with another scaling."
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--length", type=int, metavar="TOKENS", help="L (default: the run's training length)")
    parser.add_argument("--checkpoint", default="last", metavar="WHICH", help="last (default), best, or a step")
    parser.add_argument("--set", nargs="+", default=[], action="extend", metavar="PATH=VALUE", dest="overrides")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if options.length is not None and options.length < 1:
        raise ConfigError(f"--length {options.length}: expected 1 or more")
    found, length = measure(options.run, options.overrides, options.length, options.checkpoint)
    Console(width=None if sys.stdout.isatty() else 140).print(table(found, length))
