"""The command line of experiments: `python experiments/run.py [VERB] --exp NAME [options]`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxgpt.config import parse_overrides, read_yaml
from jaxgpt.errors import ConfigError, exit_code
from jaxgpt.experiment import verbs
from jaxgpt.experiment.index import Index, Listed, listed, read_index
from jaxgpt.experiment.matching import MATCHES
from jaxgpt.experiment.plan import make_plan
from jaxgpt.experiment.search.points import Wanted
from jaxgpt.experiment.spec import list_experiments, list_scales, load_experiment, load_scale
from jaxgpt.experiment.verbs import Work, make_work
from jaxgpt.experiment.where import parse_where
from jaxgpt.launch.executor.base import ExecutorConfig, load_executor

VERBS = {
    "plan": "show variants, sizes and an estimate of time; run nothing",
    "search": "try settings as search() of the experiment says, and show the best",
    "run": "train and evaluate what is not finished yet",
    "status": "show how far every run is; on a terminal, follow it",
    "retry": "start what failed once more",
    "cancel": "stop what runs or waits; `run` goes on with it",
    "report": "write tables, figures and verdicts of what is finished",
    "serve": "show all experiments of the runs folder in a browser, while they run",
    "clean": "remove the folders of runs that neither the plan nor the last start names, or that --where selects",
}
SCALE, EXECUTOR = "laptop", "local"
NAMING = ("scale", "seeds", "config", "tune", "search", "trials", "match", "overrides")
"""The options that name the runs."""


def main(arguments: Sequence[str], experiments: Path, configs: Path) -> int:
    """Run the command line; the exit code. `experiments` and `configs` are the folders of experiment and YAML files."""
    options = _parser(configs).parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    return exit_code(lambda: _Call(options, arguments, experiments, configs, console).answer())


def _parser(configs: Path) -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:8}{text}" for name, text in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="python experiments/run.py",
        description=f"Compare architectures. Without a verb: run, then report.\n\nverbs:\n{verbs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", nargs="?", choices=VERBS, metavar="VERB", help="one of the above")
    parser.add_argument("--exp", metavar="NAME", help="the experiment, a file experiments/NAME.py")
    parser.add_argument("--list", action="store_true", help="name the experiments with a line each")
    scales = ", ".join(list_scales(configs))
    parser.add_argument("--scale", metavar="NAME", help=f"how large: {scales} (default: {SCALE})")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds (default: the scale's)")
    parser.add_argument(
        "--where", metavar="FILTER",
        help="only these runs, such as 'variant=rope|alibi,seed<2', 'state=failed', 'model.position.type~rope*'",
    )  # fmt: skip
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    parser.add_argument(
        "--executor", metavar="NAME",
        help="where runs execute: local (default), slurm, a file of configs/cluster/ by its name, or a YAML file",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="runs at a time (default: as many as fit)")
    parser.add_argument(
        "--target", nargs="+", default=[], metavar="TARGET",
        help="with plan: compile every variant's train step for accelerators that are not here, such as tpu:v5e:4x4 or "
        "gpu:h100:8, and show what it needs (extras tpu and cuda)",
    )  # fmt: skip
    parser.add_argument(
        "--config", nargs="+", default=[], action="extend", type=Path, metavar="FILE",
        help="YAML laid over the scale for all variants, below --set, such as configs/data/pg-19.yaml",
    )  # fmt: skip
    parser.add_argument(
        "--tune", action=argparse.BooleanOptionalAction,
        help="choose every variant's learning rate by a small sweep first (default: as the experiment says)",
    )  # fmt: skip
    parser.add_argument(
        "--search", action=argparse.BooleanOptionalAction,
        help="search every variant's settings first, as search() of the experiment says (default: where it has one)",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, metavar="N", help="trials of a search for each variant")
    parser.add_argument(
        "--match", choices=[*MATCHES, "nothing"],
        help="make all variants as large as the first, by feed-forward width (default: as the experiment says)",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], action="extend", metavar="PATH=VALUE", dest="overrides",
        help="override the configuration of all variants, such as train.steps=500, or of the executor, such as "
        "executor.retries=5",
    )  # fmt: skip
    parser.add_argument(
        "--export", nargs="+", default=[], metavar="FORMAT",
        help="the report as well as parquet (extra parquet), latex, and its figures as svg, pdf",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", help="with serve: the address it listens at (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="with serve (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="with status: show it and end")
    parser.add_argument("--yes", action="store_true", help="with clean: do not ask")
    return parser


class _Call:
    """One call of the command line."""

    def __init__(
        self, options: argparse.Namespace, arguments: Sequence[str], experiments: Path, configs: Path, console: Console
    ):
        self.options, self.experiments, self.configs, self.console = options, experiments, configs, console
        self.before: tuple[tuple[str, Any], ...] = ()  # what the executor was configured with that is gone on with
        self.command = shlex.join(["python", "experiments/run.py", *arguments])

    def answer(self) -> int:
        """The exit code."""
        options, verb = self.options, self.options.verb
        if options.list:
            for name, summary in list_experiments(self.experiments).items():
                print(f"{name:24} {summary}")
            return 0
        if verb == "serve":
            from jaxgpt.experiment.serve import serve

            serve(options.runs_dir, options.host, options.port, console=self.console)
            return 0
        if not options.exp:
            raise ConfigError("--exp NAME: which experiment? --list names them")
        if options.target and verb != "plan":
            raise ConfigError("--target: goes with plan; runs are started on the machine that has the devices")
        if options.export:
            from jaxgpt.experiment.report import check_formats

            check_formats(options.export)
        if verb == "status":
            return verbs.status(self._listed(), self.directory, self.console, options.once)
        if verb == "cancel":
            return verbs.cancel(self._listed(needed=False), self.directory, self.console)
        if verb in ("retry", "report"):
            self._go_on()
        return self._planned(verb)(self.work())

    def _planned(self, verb: str | None) -> Callable[[Work], int]:
        """What a verb does with the plan."""
        options, console = self.options, self.console
        if verb == "plan" and options.target:
            return lambda work: verbs.forecast(work.selected, options.target, console)
        if verb == "plan":
            executor = self.executor()
            return lambda work: verbs.plan(work, executor, console)
        if verb == "report":
            return lambda work: verbs.report(work, self.command, console, options.export)
        if verb == "clean":
            return lambda work: verbs.clean(work, self.directory, console, options.yes)
        session = verbs.Session(self.executor(), self.naming(), self.command, console, options.export)
        if verb == "search":
            return session.search
        if verb == "retry":
            return session.retry
        return lambda work: session.run(work, report=verb is None)

    @property
    def directory(self) -> Path:
        return self.options.runs_dir / self.options.exp

    def naming(self) -> dict[str, object]:
        """The options that name the runs, as they were given."""
        given = {name: getattr(self.options, name) for name in NAMING}
        given["scale"] = given["scale"] or SCALE
        given["search"] = True if self.options.verb == "search" else given["search"]
        given["config"] = [str(path) for path in given["config"]]
        given["overrides"] = [one for one in given["overrides"] if not one.startswith("executor.")]
        return given

    def executor(self) -> ExecutorConfig:
        pairs = [
            (path.removeprefix("executor."), value) for path, value in self._pairs() if path.startswith("executor.")
        ]
        config = load_executor(self.options.executor or EXECUTOR, self.configs, (*self.before, *pairs))
        workers = self.options.workers
        if workers is not None and workers < 1:
            raise ConfigError(f"--workers {workers}: expected a number of processes, 1 or more")
        return config if workers is None else config.at_a_time(workers)

    def _pairs(self) -> list[tuple[str, object]]:
        return parse_overrides(self.options.overrides)

    def work(self) -> Work:
        """What there is to do."""
        options = self.options
        verbs.stay_off_accelerators()
        experiment = load_experiment(options.exp, self.experiments)
        if options.match:
            experiment = dataclasses.replace(experiment, match=None if options.match == "nothing" else options.match)
        scale = load_scale(options.scale or SCALE, self.configs)
        files = [pair for path in options.config for pair in read_yaml(path).items()]
        pairs = [*files, *(pair for pair in self._pairs() if not pair[0].startswith("executor."))]
        where = parse_where(options.where) if options.where is not None else None
        search = Wanted(True if options.verb == "search" else options.search, options.trials)
        planned = functools.partial(
            make_plan, scale=scale, configs=self.configs, runs_dir=options.runs_dir, seeds=options.seeds, pairs=pairs
        )
        return make_work(experiment, planned, pairs, options.tune, search, where)

    def _go_on(self) -> Index | None:
        """What was started last, where no option says otherwise: what is not given as an option is taken from there."""
        options, index, naming = self.options, read_index(self.directory), self.naming()
        given = {name: naming[name] for name in NAMING if getattr(options, name) is not None and naming[name] != []}
        if index is None or not given.items() <= index.options.items():
            return None
        own = [one for one in options.overrides if one.startswith("executor.")]
        for name in NAMING:
            setattr(options, name, index.options.get(name, getattr(options, name)))
        options.config, options.overrides = [Path(path) for path in options.config], [*options.overrides, *own]
        if options.executor is None:
            options.executor, self.before = str(index.executor.get("type")), tuple(index.executor.items())
        return index

    def _listed(self, needed: bool = True) -> Sequence[Listed]:
        """The runs asked about, with those that they need or without: as they were started last, or from a plan."""
        index = self._go_on()
        if index is not None and self.options.where is None:
            return index.runs
        work = self.work()
        return listed(work.plans) if needed else [Listed.of(run) for run in work.named]
