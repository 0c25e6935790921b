"""One run, without an experiment: `python -m jaxgpt.train --config YAML ... [--set PATH=VALUE ...] [--run-dir DIR]`.

With `--from DIR` the configuration of the run in DIR is the base, and its weights are what training begins with:

    python -m jaxgpt.train --from DIR --set extend.type=yarn extend.factor=4 data.sequence_length=512 train.steps=200
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxgpt.errors import exit_code
from jaxgpt.lease import locked

if TYPE_CHECKING:
    from jaxgpt.train.run import RunConfig


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jaxgpt.train", description="Train one model.")
    several = {"nargs": "+", "default": [], "action": "extend"}
    parser.add_argument("--config", **several, metavar="YAML", help="files, later ones win")
    parser.add_argument("--set", **several, metavar="PATH=VALUE", dest="overrides")
    parser.add_argument(
        "--from",
        type=Path,
        metavar="DIR",
        dest="start",
        help="begin with the weights of this run, on its configuration",
    )
    parser.add_argument("--run-dir", type=Path, help="default: runs/single/<name of the last file>-<hash>")
    parser.add_argument(
        "--plan",
        nargs="+",
        default=[],
        metavar="TARGET",
        help="train nothing: compile the train step for accelerators that are not here, such as tpu:v5e:4x4 or "
        "gpu:h100:8, and show what it needs (extras tpu and cuda)",
    )
    parser.add_argument(
        "--processes",
        action="store_true",
        help="one of several processes that train this run together, with the same command: found by Slurm, on TPU "
        "pods, in Kubernetes, or by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; needs train.mesh",
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=100,
        metavar="SECONDS",
        help="with --processes: after how long without a sign one counts as dead (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    from jaxgpt.parallel.processes import leave

    code = exit_code(lambda: _run(options))
    if code and options.processes:
        leave(code)
    return code


def _plan(config: RunConfig, name: str, targets: list[str]) -> None:
    """Show what a run's train step needs of devices that are not here."""
    import jax
    from rich.console import Console

    from jaxgpt.parallel.targets import find_target
    from jaxgpt.train.forecast import forecast
    from jaxgpt.train.forecast_table import forecast_table

    jax.config.update("jax_platforms", "cpu")
    console = Console(width=None if sys.stdout.isatty() else 160)
    for target in [find_target(one) for one in targets]:
        console.print(forecast_table(target, {name: forecast(config, target)}))


def _run(options: argparse.Namespace) -> None:
    from jaxgpt.parallel.processes import is_first, join
    from jaxgpt.train.environment import prepare_jax
    from jaxgpt.train.loop import train
    from jaxgpt.train.run import load_config
    from jaxgpt.train.start import continue_from

    if options.start is None:
        config = load_config(options.config, options.overrides)
        name = Path(options.config[-1]).stem if options.config else "default"
    else:
        config = continue_from(options.start, options.config, options.overrides)
        name = f"from-{options.start.resolve().name}"
    if options.plan:
        _plan(config, name, options.plan)
        return
    directory = options.run_dir or Path("runs") / "single" / f"{name}-{config.hash}"
    if options.processes:
        prepare_jax(config.threads, config.train.deterministic)
        join(options.patience)
    with locked(directory) if is_first() else contextlib.nullcontext():  # the same command twice names the same folder
        result = train(config, directory)
    if not is_first():
        return
    print(f"{directory}: {result.step} steps", end="")
    print("" if result.validation_loss is None else f", validation loss {result.validation_loss:.4f} nats per token")


if __name__ == "__main__":
    sys.exit(main())
