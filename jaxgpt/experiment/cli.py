"""The command line of experiments: `python experiments/run.py [VERB] --exp NAME [options]`."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from jaxgpt.config import parse_overrides, read_yaml
from jaxgpt.errors import ConfigError, Interrupted, UserError, exit_code
from jaxgpt.experiment import engine
from jaxgpt.experiment.engine import Failure, print_failures
from jaxgpt.experiment.estimate import estimate, slots_for
from jaxgpt.experiment.matching import MATCHES
from jaxgpt.experiment.plan import Plan, make_plan
from jaxgpt.experiment.progress import duration
from jaxgpt.experiment.spec import Tuning, list_experiments, list_scales, load_experiment, load_scale
from jaxgpt.experiment.tuning import Choice, choose, grid_plan, with_rates

VERBS = {
    "plan": "show variants, sizes and an estimate of time; run nothing",
    "run": "train and evaluate what is not finished yet",
    "status": "show how far every run is",
    "report": "write tables, figures and verdicts of what is finished",
}


def main(arguments: Sequence[str], experiments: Path, configs: Path) -> int:
    """Run the command line; the exit code. `experiments` and `configs` are the folders of experiment and YAML files."""
    options = _parser(configs).parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    return exit_code(lambda: _dispatch(options, arguments, experiments, configs, console))


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
    parser.add_argument("--scale", default="laptop", metavar="NAME", help=f"how large: {scales} (default: laptop)")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds (default: the scale's)")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
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
        "--match", choices=[*MATCHES, "nothing"],
        help="make all variants as large as the first, by feed-forward width (default: as the experiment says)",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], action="extend", metavar="PATH=VALUE", dest="overrides",
        help="override the configuration of all variants, such as train.steps=500",
    )  # fmt: skip
    return parser


def _dispatch(
    options: argparse.Namespace, arguments: Sequence[str], experiments: Path, configs: Path, console: Console
) -> int:
    if options.list:
        for name, summary in list_experiments(experiments).items():
            print(f"{name:24} {summary}")
        return 0
    if not options.exp:
        raise ConfigError("--exp NAME: which experiment? --list names them")
    if options.target and options.verb != "plan":
        raise ConfigError("--target: goes with plan; runs are started on the machine that has the devices")
    experiment = load_experiment(options.exp, experiments)
    if options.match:
        experiment = dataclasses.replace(experiment, match=None if options.match == "nothing" else options.match)
    scale = load_scale(options.scale, configs)
    files = [pair for path in options.config for pair in read_yaml(path).items()]
    pairs = [*files, *parse_overrides(options.overrides)]
    _stay_off_accelerators()
    work = _work(make_plan(experiment, scale, configs, options.runs_dir, options.seeds, pairs), options.tune)
    command = shlex.join(["python", "experiments/run.py", *arguments])
    if options.verb == "plan":
        if options.target:
            return _forecast(work.plan, options.target, console)
        for plan in work.plans:
            _plan(plan, options.workers, console)
        if work.undecided:
            console.print("the learning rates of the comparison are chosen when its trials (above) are finished")
    elif options.verb == "status":
        from jaxgpt.experiment.collect import status_table

        for plan in work.plans:
            console.print(status_table(plan))
    elif options.verb == "report":
        _report(work, command, console)
    else:
        return _execute(work, options, command, console)
    return 0


@dataclasses.dataclass(frozen=True)
class _Work:
    """A plan, and the trials that choose its learning rates, if any; once they are chosen, the plan has them."""

    plan: Plan
    trials: Plan | None = None
    choices: Sequence[Choice] = ()

    @property
    def plans(self) -> list[Plan]:
        return [self.plan] if self.trials is None else [self.trials, self.plan]

    @property
    def undecided(self) -> bool:
        return self.trials is not None and not self.choices


def _work(plan: Plan, tune: bool | None) -> _Work:
    """What there is to do as things stand. `tune`: whether to choose learning rates; None: as the experiment says, at
    scales where that means anything."""
    tuning = plan.experiment.tuning if tune is None and plan.scale.tune else None
    if tune:
        tuning = plan.experiment.tuning or Tuning()
    if tuning is None:
        return _Work(plan)
    trials = grid_plan(plan, tuning)
    if not trials.runs:  # all weights are given
        return _Work(plan)
    choices = choose(plan, trials, tuning)
    return _Work(with_rates(plan, choices) if choices else plan, trials, choices)


def _execute(work: _Work, options: argparse.Namespace, command: str, console: Console) -> int:
    """Run what is pending, trials first, and report; the exit code."""
    failures: Sequence[Failure] = ()
    if work.trials is not None and work.undecided:
        console.print("choosing learning rates")
        failures = _run(work.trials, options.workers, console)
        if not failures:
            work = _work(work.plan, options.tune)
    try:
        if not failures:
            failures = _run(work.plan, options.workers, console)
            if options.verb is None:
                _report(work, command, console)
    finally:
        print_failures(failures, console)
    return 1 if failures else 0


def _stay_off_accelerators() -> None:
    """This process only plans: on a TPU, or a GPU whose memory JAX would claim, it would keep its own workers out."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _plan(plan: Plan, workers: int | None, console: Console) -> None:
    sizes = engine.prepare(plan)
    table = Table(title=f"{plan.experiment.name} at scale {plan.scale.name}", title_justify="left")
    for name in ("variant", "parameters", "training FLOPs", "tokens", "runs", "finished", "what it is"):
        table.add_column(name, justify="left" if name in ("variant", "what it is") else "right", overflow="fold")
    for arm in plan.arms:
        size = sizes[arm.name]
        runs = [run for run in plan.runs if run.kind == "model" and run.variant == arm.name]
        finished = sum(run.is_finished() for run in runs)
        note = arm.variant.description
        if arm.variant.parent:
            what = "evaluated with" if not arm.variant.trains else "begins with"
            note = f"{note}; " * bool(note) + f"{what} the weights of {arm.variant.parent}"
        flops, tokens = (f"{size.flops:.3g}", f"{size.tokens:,}") if size.tokens else ("-", "-")
        numbers = (str(len(runs)), str(finished)) if runs else ("-", "-")
        table.add_row(arm.name, f"{size.parameters:,}", flops, tokens, *numbers, note)
    console.print(table)
    waiting = engine.pending(plan)
    slots = slots_for(plan, sizes, workers)
    seeds = f"{len(plan.seeds)} seed{'s' if len(plan.seeds) > 1 else ''}"
    console.print(f"{len(plan.runs)} runs ({seeds}, baseline included), {len(plan.runs) - len(waiting)} finished")
    console.print(f"{len(slots)} at a time, {plan.threads} thread{'s' if plan.threads > 1 else ''} each")
    if waiting:
        guess = estimate(plan, sizes, waiting, len(slots))
        console.print(f"estimate: {duration(guess.seconds)}, from {guess.basis}", highlight=False)


def _forecast(plan: Plan, targets: Sequence[str], console: Console) -> int:
    """Compile what the plan trains for devices that are not here; the exit code."""
    from jaxgpt.parallel.targets import find_target
    from jaxgpt.train.forecast import Forecast, forecast
    from jaxgpt.train.forecast_table import forecast_table

    found_targets = [find_target(name) for name in targets]  # what is wrong is said before anything is compiled
    arms = [arm for arm in plan.arms if arm.variant.trains]
    code = 0
    for target in found_targets:
        found: dict[str, Forecast | str] = {}
        for arm in track(arms, f"compiling for {target.name}", console=Console(stderr=True), transient=True):
            try:
                found[arm.name] = forecast(arm.training, target)
            except ConfigError as error:
                found[arm.name], code = str(error), error.exit_code
        console.print(forecast_table(target, found))
    return code


def _run(plan: Plan, workers: int | None, console: Console) -> Sequence[Failure]:
    """Execute what is pending; what failed. Raises Interrupted when told to stop."""
    sizes = engine.prepare(plan)
    waiting = engine.pending(plan)
    where = f"{plan.experiment.name}, scale {plan.scale.name}"
    if not waiting:
        console.print(Text(f"{where}: all {len(plan.runs)} runs are finished"), soft_wrap=True)
        return ()
    slots = slots_for(plan, sizes, workers)
    todo = f"{len(waiting)} of {len(plan.runs)} runs to do, {len(slots)} at a time, in {plan.directory}"
    console.print(Text(f"{where}: {todo}"), soft_wrap=True)
    executed = engine.execute(plan, slots, sizes, console)
    if executed.interrupted:
        raise Interrupted(f"{where}: interrupted; the same command goes on from what was saved")
    return executed.failures


def _report(work: _Work, command: str, console: Console) -> None:
    """Write the report and print its essence."""
    from jaxgpt.experiment.collect import make_report, print_report
    from jaxgpt.experiment.report import write_report

    if work.undecided:
        raise UserError(
            f"{work.plan.directory}: its learning rates are not chosen yet; start the trials with the verb run"
        )
    report = make_report(work.plan, command, work.choices)
    print_report(report, write_report(report, work.plan.directory / "report"), console)
