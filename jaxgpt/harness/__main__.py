"""`python -m jaxgpt.harness FOLDER --tasks NAME ...`: what a model scores on tasks of lm-evaluation-harness.

FOLDER is a run (`runs/.../<name>`), or a checkpoint of transformers with its tokenizer (extra `hf`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgpt.errors import ConfigError, UserError, exit_code, first_line, from_extra, nearest
from jaxgpt.files import write_json
from jaxgpt.models.base import Model


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m jaxgpt.harness", description="Score a model on tasks.")
    made.add_argument("folder", type=Path, help="a run, or a checkpoint of transformers")
    made.add_argument("--checkpoint", default="last", metavar="WHICH", help="of a run: last (default), best, or a step")
    made.add_argument("--tasks", nargs="+", required=True, metavar="NAME", help="tasks or groups of tasks")
    made.add_argument("--tasks-dir", type=Path, metavar="DIR", help="a folder with tasks of your own (YAML)")
    made.add_argument(
        "--fewshot", type=int, metavar="N", help="examples shown before the question (default: the task's)"
    )
    made.add_argument("--limit", type=int, metavar="N", help="only the first N examples of each task")
    made.add_argument("--max-length", type=int, metavar="N", help="tokens read at once (default: those of training)")
    made.add_argument("--batch-size", type=int, default=8, metavar="N")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--output", type=Path, metavar="FILE", help="also write the results as JSON")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    for name, least in (("batch_size", 1), ("max_length", 2), ("limit", 1), ("fewshot", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
    lm_eval = from_extra("lm_eval", "harness", "tasks need")
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
    from lm_eval.utils import make_table  # pyright: ignore[reportMissingImports]

    from jaxgpt.data.tokenizers.numbers import NumberTokenizer
    from jaxgpt.generate.text import load
    from jaxgpt.harness.adapter import HarnessModel

    manager = TaskManager(include_path=None if options.tasks_dir is None else str(options.tasks_dir))
    for name in options.tasks:
        if not manager.match_tasks([name]):
            raise ConfigError(f"--tasks: none is called {name!r}{nearest(name, manager.all_tasks)}")
    source = load(options.folder, options.checkpoint)
    if isinstance(source.tokenizer, NumberTokenizer):
        raise ConfigError(
            f"{options.folder}: has no tokenizer for texts, and tasks are texts; put its tokenizer.json there"
        )
    if not _causal(source.model.config):
        raise ConfigError(
            f"{options.folder}: its experts choose among all tokens of a batch, so that a text's score depends on the "
            "others beside it; tasks need a router by token"
        )
    length = _length(source.model, options.max_length)
    model = HarnessModel(source, length, options.batch_size, options.seed)
    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "fewshot_random_seed"), options.seed)
    shots = {"num_fewshot": options.fewshot, "limit": options.limit}
    try:
        found = lm_eval.simple_evaluate(model=model, tasks=options.tasks, task_manager=manager, **shots, **seeds)
    except UserError:
        raise
    except Exception as error:  # a data set that cannot be had, a task that is not for text: of many types
        raise UserError(f"--tasks {' '.join(options.tasks)}: {type(error).__name__}: {first_line(error)}") from error
    print(make_table(found))
    if options.output is not None:
        write_json(options.output, _plain({name: found[name] for name in ("results", "versions", "n-samples")}))


def _causal(config: Any) -> bool:
    """Whether what a model says of a token hangs on nothing but the tokens before it."""
    feedforward = getattr(config, "feedforward", None)
    each = feedforward.values() if isinstance(feedforward, Mapping) else [feedforward]
    return all(getattr(getattr(one, "router", None), "causal", True) for one in each)


def _length(model: Model, asked: int | None) -> int:
    """How many tokens the model reads at once."""
    length = asked or model.config.train_length
    if length is None:
        raise ConfigError("--max-length: give one, for this model does not say how long its sequences were")
    if model.max_length is not None and length > model.max_length:
        raise ConfigError(f"--max-length {length}: this model has positions for {model.max_length} tokens only")
    return length


def _plain(found: Any) -> Any:
    """What JSON can hold."""
    return json.loads(json.dumps(found, default=str))


if __name__ == "__main__":
    sys.exit(main())
