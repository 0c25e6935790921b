"""How much an experiment computes and how long that may take, before anything runs."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxgpt.experiment.plan import Arm, Plan, Run
from jaxgpt.experiment.store import REQUEST, RunFolder
from jaxgpt.launch.machine import thread_environment
from jaxgpt.launch.task import Needs

if TYPE_CHECKING:
    from jaxgpt.data.dataset import Dataset

SHARE_OF_PEAK = 0.3
"""Share of the matrix-product peak that training a small model reaches on a CPU; a guess until a run has been timed."""

EVALUATION_SHARE = 0.2
"""Time of one evaluation over that of training a run from the start; likewise a guess."""

START_SECONDS = 8.0
"""From the start of a worker to its first step, compilation included."""


@dataclasses.dataclass(frozen=True)
class Size:
    """What one arm costs, on the data it has. An arm that only evaluates trains on no tokens."""

    parameters: int
    flops_per_token: int  # to train, forward and backward
    tokens: int
    dataset: str  # fingerprint of tokenizer and tokens

    @property
    def flops(self) -> int:
        return self.flops_per_token * self.tokens


def size_of(arm: Arm, dataset: Dataset) -> Size:
    """Count an arm's parameters and operations without making its model."""
    import jax

    from jaxgpt.models.base import parameter_count
    from jaxgpt.train.run import abstract_key, with_sizes

    data = arm.training.data
    model = with_sizes(arm.model, dataset.tokenizer.vocab_size, data.sequence_length)
    abstract = jax.eval_shape(model.make, abstract_key())
    tokens = arm.training.tokens if arm.variant.trains else 0
    return Size(parameter_count(abstract), model.flops_per_token(data.sequence_length), tokens, dataset.fingerprint)


def memory_of(size: Size, arm: Arm) -> int:
    """Bytes a run may need: the process, 16 bytes per parameter (weights, gradients, two moments) and the activations.
    Deliberately coarse; it only keeps a pool from starting more runs than the machine can hold."""
    rows = arm.training.train.batch_size * arm.training.data.sequence_length
    model = arm.model
    width, layers = getattr(model, "width", 512), getattr(model, "num_layers", 12)
    return 2**30 + 16 * size.parameters + 4 * rows * width * layers * 24


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds until everything pending is done, with what they are based on."""

    seconds: float
    basis: str


def estimate(plan: Plan, sizes: Mapping[str, Size], pending: Sequence[Run], workers: int) -> Estimate:
    """Time for the pending runs: from the speed of finished runs beside this experiment's folder (same number of
    threads), else from this machine's matrix-product peak and a stated share of it."""
    history = list(_history(plan.directory.parent, plan.threads))
    if history:
        rate = statistics.median(rate for rate, _ in history)
        share = statistics.median(share for _, share in history)
        basis = f"{len(history)} earlier run{'s' if len(history) > 1 else ''} at {rate / 1e9:.3g} GFLOP/s"
    else:
        peak = measure_peak(plan.threads)
        rate, share = peak * SHARE_OF_PEAK, EVALUATION_SHARE
        basis = (
            f"{SHARE_OF_PEAK:.0%} of this machine's matrix-product peak ({peak / 1e9:.3g} GFLOP/s with {plan.threads} "
            f"thread{'s' if plan.threads > 1 else ''}), an evaluation {share:.0%} of training"
        )
    seconds: dict[str, float] = {}
    ends: dict[str, float] = {}  # of each run, were there a slot for every run
    for run in pending:
        if run.kind == "model":
            root = plan.experiment.chain(run.arm.variant)[0].name  # its further training is short, its evaluation not
            evaluating = share * sizes[root].flops * _evaluations_left(run)
            seconds[run.name] = START_SECONDS + (_flops_left(run, sizes) + evaluating) / rate
            ends[run.name] = seconds[run.name] + ends.get(run.after, 0.0)
    total = sum(seconds.values()) / max(1, min(workers, len(seconds)))
    return Estimate(max([total, *ends.values()]), basis)


def _evaluations_left(run: Run) -> int:
    done = run.folder.evaluations()
    return sum(one.hash not in done for one in run.evaluations)


def _flops_left(run: Run, sizes: Mapping[str, Size]) -> float:
    """Operations of training that an interrupted or finished run still needs."""
    progress = run.folder.progress()
    if progress.state in ("trained", "finished"):
        return 0.0
    done = progress.step / progress.steps if progress.steps else 0.0
    return (1.0 - min(1.0, done)) * sizes[run.variant].flops


def _history(runs_dir: Path, threads: int) -> Iterable[tuple[float, float]]:
    """(FLOP/s while training, time of one evaluation over that of training) of the finished runs in any experiment's
    folder, but for those that only trained another's weights further: they are short."""
    for path in sorted(runs_dir.glob(f"*/*/{REQUEST}")):
        folder = RunFolder(path.parent)
        try:
            request = folder.request()
            if request.get("threads") != threads or folder.status().get("state") != "finished":
                continue
            if request.get("config", {}).get("start") is not None:
                continue
            speeds = [entry["tokens_per_second"] for entry in folder.curve() if entry.get("tokens_per_second")]
            rate = statistics.median(speeds) * request["flops_per_token"]
            training = request["flops_per_token"] * request["tokens"] / rate
            evaluating = statistics.mean(entry.get("seconds", 0.0) for entry in folder.evaluations().values())
        except (KeyError, ValueError, TypeError, ZeroDivisionError):  # a folder of another version says less
            continue
        yield rate, evaluating / training


_PEAK = """
import json, time, numpy as np
a = np.random.default_rng(0).standard_normal((768, 768), np.float32)
a @ a
best = 9e9
for _ in range(5):
    start = time.perf_counter(); a @ a; best = min(best, time.perf_counter() - start)
print(json.dumps(2 * 768**3 / best))
"""


def measure_peak(threads: int) -> float:
    """FLOP/s of a float32 matrix product with so many threads, measured in a process of its own (0.3 s)."""
    env = {**os.environ, **thread_environment(threads)}
    result = subprocess.run([sys.executable, "-c", _PEAK], env=env, capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout))


def needs_of(plan: Plan, sizes: Mapping[str, Size]) -> Needs:
    """What every run of a plan needs: the most that one of them does."""
    memory = max(memory_of(sizes[arm.name], arm) for arm in plan.arms)
    devices = max(mesh.devices if (mesh := arm.training.train.mesh) else 1 for arm in plan.arms)
    return Needs(plan.threads, memory, devices)
