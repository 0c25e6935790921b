"""How fast is the train step? Beside the machine's own matrix products and the same model in PyTorch, in one run.

    python experiments/benchmark.py [--rounds 10] [--threads 2] [--sizes 4x128 6x256] [--json FILE]

Everything is measured in turns (matrix product, jaxgpt, PyTorch, and again), so that what else the machine does meets
all alike; medians are shown, and the ratio of each turn's two steps. PyTorch comes with `pip install -e ".[bench]"`;
without it the rest is measured. Float32, one process, the same number of threads for both.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from jaxgpt.launch.machine import as_a_worker, cores
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.params import flatten
from jaxgpt.nn.position.absolute import LearnedConfig
from jaxgpt.train.environment import prepare_jax
from jaxgpt.train.optimizer.adamw import AdamWConfig
from jaxgpt.train.step import init_state, loss_sum, make_train_step

LEARNING_RATE, CLIP = 1e-3, 1.0
PEAK_SIZE = 2048  # rows and columns of the matrices whose product shows the machine's peak


@dataclasses.dataclass(frozen=True)
class Size:
    """A decoder with biases and learned positions, and its batch: B sequences of T tokens."""

    num_layers: int
    width: int
    num_heads: int
    vocab_size: int
    length: int
    batch: int

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    def model(self) -> DecoderConfig:
        return DecoderConfig(
            vocab_size=self.vocab_size,
            train_length=self.length,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            width=self.width,
            position=LearnedConfig(),
            bias=True,
        )

    def draw(self) -> dict[str, np.ndarray]:
        """A batch of random tokens."""
        tokens = np.random.default_rng(0).integers(0, self.vocab_size, (self.batch, self.length + 1), dtype=np.int32)
        shape = (self.batch, self.length)
        inputs, targets = np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])
        segment, weights = np.ones(shape, np.int32), np.ones(shape, np.float32)
        return {"inputs": inputs, "targets": targets, "segment": segment, "weights": weights}


SIZES = {
    "4x128": Size(num_layers=4, width=128, num_heads=4, vocab_size=1024, length=128, batch=32),
    "6x256": Size(num_layers=6, width=256, num_heads=8, vocab_size=4096, length=256, batch=16),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What one size took; times are seconds of each turn, rates per second."""

    size: str
    threads: int
    peak: list[float]  # FLOPs per second of a large matrix product
    jaxgpt: list[float]
    torch: list[float] | None
    flops: int  # of the model, one step
    tokens: int
    loss: float
    torch_loss: float | None  # with the same weights and batch

    def ratios(self) -> list[float]:
        """jaxgpt's time over PyTorch's, turn by turn."""
        return [ours / theirs for ours, theirs in zip(self.jaxgpt, self.torch or [], strict=bool(self.torch))]


class JaxTrainer:
    """jaxgpt's own train step, as its training loop compiles it."""

    def __init__(self, size: Size):
        adamw = AdamWConfig().make(optax.constant_schedule(LEARNING_RATE))
        optimizer = optax.chain(optax.clip_by_global_norm(CLIP), adamw)
        self.batch = size.draw()
        self.state = jax.jit(lambda: init_state(size.model(), optimizer, 0))()
        self._step = jax.jit(make_train_step(optimizer, seed=0, packed=False), donate_argnums=0)

    def loss(self) -> float:
        total = jax.jit(lambda model, batch: loss_sum(model, batch, packed=False))(self.state.model, self.batch)
        return float(total) / float(self.batch["weights"].sum())

    def parameters(self) -> dict[str, np.ndarray]:
        return {path: np.asarray(leaf) for path, leaf in flatten(self.state.model).items()}

    def step(self) -> float:
        self.state, metrics = self._step(self.state, self.batch)
        return float(metrics["loss"])


def torch_trainer(size: Size, batch: dict[str, np.ndarray], parameters: dict[str, np.ndarray], threads: int):
    """The same model with the same weights in PyTorch: (its loss, its step)."""
    import torch  # pyright: ignore[reportMissingImports]
    from benchmark_torch import TorchDecoder, TorchTrainer

    torch.set_num_threads(threads)
    sizes = {"num_layers": size.num_layers, "num_heads": size.num_heads, "width": size.width}
    model = TorchDecoder(**sizes, vocab_size=size.vocab_size, length=size.length)
    model.load(parameters)
    tokens, targets = (torch.from_numpy(batch[name]).long() for name in ("inputs", "targets"))
    with torch.no_grad():
        loss = float(model(tokens, targets))
    trainer = TorchTrainer(model, learning_rate=LEARNING_RATE, clip=CLIP, betas=(AdamWConfig.beta1, AdamWConfig.beta2))
    return loss, lambda: trainer.step(tokens, targets)


def measure(name: str, size: Size, rounds: int, threads: int, with_torch: bool) -> Result:
    """Time everything in turns, after two steps of each to warm up. Raises SystemExit if the two losses differ."""
    ours = JaxTrainer(size)
    loss, torch_loss, theirs = ours.loss(), None, None
    if with_torch:
        torch_loss, theirs = torch_trainer(size, ours.batch, ours.parameters(), threads)
        if abs(loss - torch_loss) > 1e-4 * abs(loss):
            raise SystemExit(f"{name}: not the same model: its loss is {loss} in jaxgpt and {torch_loss} in PyTorch")
    turns = [_product(), ours.step, *([] if theirs is None else [theirs])]
    for turn in turns * 2:
        turn()
    times = np.array([[_seconds(turn) for turn in turns] for _ in range(rounds)]).T.tolist()
    flops = size.model().flops_per_token(size.length) * size.tokens
    peak = [2 * PEAK_SIZE**3 / seconds for seconds in times[0]]
    torch_times = times[2] if with_torch else None
    return Result(name, threads, peak, times[1], torch_times, flops, size.tokens, loss, torch_loss)


def _product() -> Callable[[], Any]:
    matrix = jnp.asarray(np.random.default_rng(0).standard_normal((PEAK_SIZE, PEAK_SIZE)), jnp.float32)
    product = jax.jit(jnp.dot)
    return lambda: product(matrix, matrix).block_until_ready()


def _seconds(turn: Callable[[], Any]) -> float:
    began = time.perf_counter()
    turn()
    return time.perf_counter() - began


def show(results: list[Result], console: Console) -> None:
    peak = statistics.median(peak for result in results for peak in result.peak)
    threads = results[0].threads
    table = Table(title=f"Train step, float32, threads: {threads}; matrix products reach {peak / 1e9:.0f} GF/s")
    for column in ("size", "", "ms", "fastest", "tokens/s", "GFLOP", "of peak", "jaxgpt / PyTorch"):
        table.add_column(column, justify="left" if column in ("size", "") else "right")
    for result in results:
        for name, times in (("jaxgpt", result.jaxgpt), ("PyTorch", result.torch)):
            if times is None:
                continue
            seconds = statistics.median(times)
            share = result.flops / seconds / statistics.median(result.peak)
            ratio = _ratio(result.ratios()) if name == "jaxgpt" else ""
            rate, work = f"{result.tokens / seconds:,.0f}", f"{result.flops / 1e9:.1f}"
            table.add_row(
                result.size, name, f"{seconds * 1e3:.0f}", f"{min(times) * 1e3:.0f}", rate, work, f"{share:.0%}", ratio
            )
    console.print(table)
    for result in results:
        if result.torch is not None:
            fastest = f"fastest against fastest {min(result.jaxgpt) / min(result.torch):.2f}"
            console.print(f"{result.size}: {fastest}; the same loss, {result.loss:.6f} and {result.torch_loss:.6f}")
    if any(result.torch is None for result in results):
        console.print("PyTorch was not measured: it is not installed (pip install -e '.\\[bench]') or was left out")


def _ratio(ratios: list[float]) -> str:
    if not ratios:
        return ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="turns per size (default 10)")
    parser.add_argument("--threads", type=int, default=len(cores()), help="threads of both (default: all cores)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="layers x width")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--json", type=Path, help="write all times here")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    prepare_jax(options.threads)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    with_torch = not options.no_torch and importlib.util.find_spec("torch") is not None
    results = [measure(name, SIZES[name], options.rounds, options.threads, with_torch) for name in options.sizes]
    console = Console()
    show(results, console)
    if busy + options.threads > len(cores()) + 0.5:
        console.print(f"Other work was running (load {busy:.1f}): trust the fastest steps, or --threads 1, more")
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(as_a_worker(main))
