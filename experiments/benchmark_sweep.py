"""What a sweep costs beside its runs: `python experiments/benchmark_sweep.py [--runs 200] [--workers 2] [--steps 20]`.

Trains that many small runs (rope_vs_alibi at the scale `smoke`, shorter still, with as many seeds as it takes) in a
fresh folder through the local executor, and prints a table in markdown:

    overhead    time of the sweep, times the workers, over the runs' own time (from the start of each process to its
                end), less one: what planning, starting and waiting cost. Should be under 15%.
    memory      of the launcher, after a tenth of the runs and at the end: should be flat.
    status      time of `run.py status` while all of them are there, the whole command: should be under a second.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from jaxgpt.config import encode
from jaxgpt.experiment import engine
from jaxgpt.experiment.estimate import needs_of
from jaxgpt.experiment.index import Index, listed, write_index
from jaxgpt.experiment.plan import Plan, make_plan
from jaxgpt.experiment.spec import load_experiment, load_scale
from jaxgpt.experiment.verbs import stay_off_accelerators
from jaxgpt.launch.executor.base import Executor
from jaxgpt.launch.executor.local import LocalConfig
from jaxgpt.launch.task import Event

HERE = Path(__file__).resolve().parent
EXPERIMENT, SCALE = "rope_vs_alibi", "smoke"


def plan_of(runs: int, steps: int, folder: Path) -> Plan:
    """A plan of at least so many runs."""
    experiment, configs = load_experiment(EXPERIMENT, HERE), HERE.parent / "configs"
    trained = sum(variant.trains for variant in experiment.variants)
    pairs = [("train.steps", steps), ("train.validate_every", steps)]
    return make_plan(experiment, load_scale(SCALE, configs), configs, folder, math.ceil(runs / trained), pairs)


def memory() -> float:
    """MiB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Watched(Executor):
    """An executor whose runs are timed and whose launcher is weighed."""

    def __init__(self, inner: Executor, runs: int):
        self.inner, self.parallel, self.runs = inner, inner.parallel, runs
        self.own, self.ended, self.weights = 0.0, 0, dict[int, float]()

    @property
    def interrupted(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.interrupted

    def run(self, tasks, on_event, look):  # pyright: ignore[reportIncompatibleMethodOverride]
        def watch(event: Event) -> None:
            on_event(event)
            if event.kind == "ended" and event.outcome is not None:
                self.ended += 1
                self.own += event.outcome.seconds
                if self.ended in (max(1, self.runs // 10), self.runs):
                    self.weights[self.ended] = memory()

        started = time.monotonic()
        outcomes = self.inner.run(tasks, watch, look)
        self.seconds = time.monotonic() - started
        return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    stay_off_accelerators()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        plan = plan_of(options.runs, options.steps, Path(folder))
        sizes = engine.prepare(plan)
        config = LocalConfig(workers=options.workers)
        watched = Watched(config.make(needs_of(plan, sizes), plan.directory), len(plan.runs))
        write_index(plan.directory, Index({}, encode(config), listed([plan])))
        executed = engine.execute(plan, watched, sizes, Console(stderr=True))
        total = time.monotonic() - began
        assert len(executed.finished) == len(plan.runs), executed.failures
        command = [sys.executable, str(HERE / "run.py"), "status", "--exp", EXPERIMENT, "--runs-dir", folder]
        answers = []
        for _ in range(5):
            asked = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            answers.append(time.monotonic() - asked)
    early, late = watched.weights.values()
    overhead = total * options.workers / watched.own - 1
    print("| | measured | as it should |\n| --- | --- | --- |")
    rows = {
        f"overhead of {len(plan.runs)} runs, {options.workers} at a time": (f"{overhead:.1%}", overhead < 0.15),
        "seconds of a run, mean": (f"{watched.own / len(plan.runs):.1f}", None),
        "launcher, MiB after a tenth and at the end": (f"{early:.0f}, {late:.0f}", late < early + 8),
        "status, s": (f"{sorted(answers)[2]:.2f} ({min(answers):.2f} to {max(answers):.2f})", max(answers) < 1.0),
    }
    for name, (measured, good) in rows.items():
        print(f"| {name} | {measured} | {'' if good is None else 'yes' if good else 'no'} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
