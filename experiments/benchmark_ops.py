"""How much the fast paths save, as tables in markdown: attention, cross entropy, dispatch, data.

    python experiments/benchmark_ops.py [--only attention cross_entropy dispatch data] [--rounds 10] [--no-times]

What is compared runs in turns in one process (ours, the plain form, and again), so that what else the machine does
meets both alike: ratios are those of each turn, their median is shown with the range. Memory is what XLA sets aside
beside arguments and results (`memory_analysis`), which no other work changes; `--no-times` shows that and the errors
alone. Float32. Every table says what it should show; a row says whether it does.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.sources.text import TextDataConfig
from jaxgpt.launch.machine import as_a_worker, available_memory, cores
from jaxgpt.models.base import ModelConfig
from jaxgpt.nn.mixer.base import Mask
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.ops import attention as ops
from jaxgpt.ops.cross_entropy import Head, fused
from jaxgpt.ops.fused import Rows
from jaxgpt.registry import lookup
from jaxgpt.train.devices import devices_of
from jaxgpt.train.environment import prepare_jax
from jaxgpt.train.groups import make_optimizer
from jaxgpt.train.run import RunConfig, load_config, with_sizes
from jaxgpt.train.step import init_state, make_train_step

MIB = 2**20
PIECE = 128  # queries at a time of the naive form: all pairs of a long sequence do not fit
LAPTOP = Path(__file__).resolve().parent.parent / "configs" / "model" / "laptop.yaml"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured."""

    length: int = 8192  # tokens of attention
    heads: int = 2
    head_dim: int = 64
    biases: tuple[str, ...] = ("nope", "alibi", "t5", "kerple", "fire")
    tokens: int = 4096  # of the cross entropy
    width: int = 256
    vocabularies: tuple[int, ...] = (8192, 50257)
    lengths: tuple[int, ...] = (128, 1024)  # of the data's sequences
    drawn: int = 2_000_000  # tokens a round
    data: DataConfig = TextDataConfig()


SIZES = Sizes()


@dataclasses.dataclass(frozen=True)
class Table:
    """What one part found. Its last column says whether a row is as it should be."""

    title: str
    should: str
    columns: tuple[str, ...]
    rows: list[list[str]]

    def markdown(self) -> str:
        lines = [list(self.columns), ["---"] * len(self.columns), *self.rows]
        return f"## {self.title}\n\n{self.should}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function with its arguments."""

    run: Callable[[], Any]
    memory: int  # bytes

    @classmethod
    def of(cls, function: Callable[..., Any], *arguments: Any) -> Program:
        made = jax.jit(function).lower(*arguments).compile()
        memory = made.memory_analysis()
        assert memory is not None, "XLA's CPU, GPUs and TPUs tell it"
        return cls(functools.partial(made, *arguments), memory.temp_size_in_bytes)

    def seconds(self) -> float:
        began = time.perf_counter()
        jax.block_until_ready(self.run())
        return time.perf_counter() - began

    def fits(self) -> bool:
        room = available_memory()
        return room is None or self.memory < 0.8 * room


def in_turns(ours: Program, plain: Program, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of both, turn by turn, after one turn to warm up; nothing in no rounds."""
    times = [(ours.seconds(), plain.seconds()) for _ in range(rounds + 1 if rounds else 0)][1:]
    return [one for one, _ in times], [other for _, other in times]


def spread(values: list[float], form: str) -> str:
    """`median (least to most)`."""
    if not values:
        return "—"
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def verdict(**met: bool | None) -> str:
    """`yes`, or what is missed; None was not measured."""
    missed = [name for name, good in met.items() if good is False]
    unknown = [name for name, good in met.items() if good is None]
    return "; ".join(
        [f"no: {', '.join(missed)}" if missed else "yes", *([f"not measured: {', '.join(unknown)}"] if unknown else [])]
    )


def median_at_least(values: list[float], least: float) -> bool | None:
    return statistics.median(values) >= least if values else None


def mib(size: int) -> str:
    return f"{size / MIB:,.1f}"


def difference(found: Any, wanted: Any) -> float:
    """The largest over leaves of the largest difference, relative to the largest number of the leaf."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return max(float(jnp.abs(one - other).max() / jnp.maximum(jnp.abs(other).max(), 1e-30)) for one, other in pairs)


# ---------------------------------------------------------------------------------------------------------- attention


@dataclasses.dataclass(frozen=True)
class Attention:
    """One layer's attention, causal, of one sequence; all forms take (q, k, v, encoding) and return [1, T, N, H]."""

    length: int
    encoding: PositionEncoding
    qkv: tuple[Array, Array, Array]
    pull: Array  # the gradient of the output

    @classmethod
    def draw(cls, kind: str, length: int, sizes: Sizes) -> Attention:
        width = sizes.heads * sizes.head_dim
        dims = PositionDims(width=width, head_dim=sizes.head_dim, num_heads=sizes.heads, train_length=length)
        encoding = lookup(PositionConfig, kind, "position")().make(dims, jax.random.key(0))
        draw, shape = np.random.default_rng(0), (1, length, sizes.heads, sizes.head_dim)
        q, k, v, pull = (jnp.asarray(draw.standard_normal(shape), jnp.float32) for _ in range(4))
        return cls(length, encoding, (q, k, v), pull)

    @property
    def where(self) -> Positions:
        return Positions.of(jnp.zeros((1, self.length)))

    def blockwise(self, q: Array, k: Array, v: Array, encoding: PositionEncoding) -> Array:
        bias = encoding.bias if encoding.has_bias else None
        return ops.attention(q, k, v, self.where, self.where, Mask(), bias, implementation="blockwise", rows=Rows())

    def plain(self, q: Array, k: Array, v: Array, encoding: PositionEncoding) -> Array:
        bias = encoding.bias(self.where, self.where) if encoding.has_bias else None
        return jax.nn.dot_product_attention(q, k, v, bias=bias, is_causal=True)

    def naive(self, q: Array, k: Array, v: Array, encoding: PositionEncoding) -> Array:
        """The definition, some queries at a time with all keys."""
        bias = encoding.bias if encoding.has_bias else None

        def piece(part: Any) -> Array:
            return ops.naive(part[0], k, v, part[1], self.where, Mask(), bias)

        size = min(PIECE, self.length)
        parts = ops.in_blocks(q, 1, size), ops.where_in_blocks(self.where, size)
        out = jax.lax.map(jax.checkpoint(piece), parts)
        return jnp.moveaxis(out, 0, 1).reshape(1, -1, *q.shape[2:])[:, : self.length]

    def gradient(self, form: Callable[..., Array]) -> Program:
        """Of q, k, v and what the encoding learns."""

        def loss(q, k, v, encoding, pull):
            return (form(q, k, v, encoding) * pull).sum()

        return Program.of(jax.grad(loss, argnums=(0, 1, 2, 3)), *self.qkv, self.encoding, self.pull)

    def errors(self) -> tuple[float, float]:
        """The largest difference of outputs to the naive form's, and of the gradients of q, k and v relative to their
        largest number."""
        ours, wanted = (Program.of(form, *self.qkv, self.encoding).run() for form in (self.blockwise, self.naive))
        gradients = (self.gradient(form).run()[:3] for form in (self.blockwise, self.naive))
        return float(jnp.abs(ours - wanted).max()), difference(*gradients)


def fitting(kind: str, sizes: Sizes) -> tuple[Attention, Program]:
    """The plain form at the length asked for, halved until the machine can hold it."""
    length = sizes.length
    while True:
        made = Attention.draw(kind, length, sizes)
        plain = made.gradient(made.plain)
        if plain.fits() or length <= 2:
            return made, plain
        length //= 2


def attention_table(sizes: Sizes, rounds: int) -> Table:
    rows = []
    for kind in sizes.biases:
        long, longer = (Attention.draw(kind, length, sizes) for length in (sizes.length, 2 * sizes.length))
        ours, double = (one.gradient(one.blockwise) for one in (long, longer))
        plain = long.gradient(long.plain)
        out, gradient = long.errors()
        held, held_plain = fitting(kind, sizes) if rounds else (long, plain)
        faster = [
            other / one for one, other in zip(*in_turns(held.gradient(held.blockwise), held_plain, rounds), strict=True)
        ]
        at = "" if held.length == sizes.length else f" at {held.length}, the longest whose plain form fits"
        met = verdict(
            time=median_at_least(faster, 2.5),
            memory=ours.memory <= plain.memory / 10,
            error=max(out, gradient) <= 1e-5,
            doubling=double.memory <= 2.2 * ours.memory,
        )
        memory = [mib(one.memory) for one in (ours, plain, double)]
        share = f"1/{plain.memory / max(ours.memory, 1):.0f}"
        rows.append(
            [kind, spread(faster, ".1f") + at, *memory[:2], share, memory[2], f"{out:.1e}", f"{gradient:.1e}", met]
        )
    return Table(
        f"Blockwise attention: gradient of {sizes.length:,} tokens, {sizes.heads} heads of {sizes.head_dim}, causal",
        "Beside `jax.nn.dot_product_attention` with the bias of all pairs: at least 2.5 times faster, at most a tenth "
        f"of its memory, twice as much at {2 * sizes.length:,} tokens (at most 2.2 times). Errors against the naive "
        f"form, computed for {PIECE} queries at a time with all keys: at most 1e-5, of the output and of the gradients "
        "of q, k and v relative to their largest number.",
        (
            "bias",
            "times faster",
            "MiB",
            "MiB, plain",
            "share",
            f"MiB at {2 * sizes.length:,}",
            "error of outputs",
            "of gradients",
            "as it should",
        ),
        rows,
    )


# ------------------------------------------------------------------------------------------------------ cross entropy


def cross_entropy_table(sizes: Sizes, rounds: int) -> Table:
    rows = []
    for vocabulary in sizes.vocabularies:
        draw = np.random.default_rng(0)
        x_MD, matrix_DV = (
            jnp.asarray(draw.standard_normal(shape) * scale, jnp.float32)
            for shape, scale in (((sizes.tokens, sizes.width), 1.0), ((sizes.width, vocabulary), sizes.width**-0.5))
        )
        targets_M = jnp.asarray(draw.integers(0, vocabulary, sizes.tokens), jnp.int32)

        def ours(x_MD, matrix_DV, targets_M):
            return fused(x_MD, Head(matrix_DV), targets_M, jnp.ones(targets_M.shape, jnp.float32))

        def plain(x_MD, matrix_DV, targets_M):
            return optax.softmax_cross_entropy_with_integer_labels(x_MD @ matrix_DV, targets_M).sum()

        fast, slow = (
            Program.of(jax.value_and_grad(form, argnums=(0, 1)), x_MD, matrix_DV, targets_M) for form in (ours, plain)
        )
        error = difference(fast.run(), slow.run())
        times = in_turns(fast, slow, rounds)
        faster = [other / one for one, other in zip(*times, strict=True)]
        met = verdict(time=median_at_least(faster, 1.0), memory=fast.memory <= slow.memory / 4, error=error <= 1e-5)
        milliseconds = [spread([seconds * 1e3 for seconds in one], ".0f") for one in times]
        share = f"1/{slow.memory / max(fast.memory, 1):.1f}"
        memory = [mib(one.memory) for one in (fast, slow)]
        rows.append([f"{vocabulary:,}", spread(faster, ".2f"), *milliseconds, *memory, share, f"{error:.1e}", met])
    return Table(
        f"Fused cross entropy: value and gradients of {sizes.tokens:,} tokens, width {sizes.width}",
        "Beside optax's `softmax_cross_entropy_with_integer_labels` of all logits: no slower, at most a quarter of its "
        "memory. The error is that of the sum and of the gradients, relative to their largest number: at most 1e-5.",
        ("vocabulary", "times faster", "ms", "ms, plain", "MiB", "MiB, plain", "share", "error", "as it should"),
        rows,
    )


# ----------------------------------------------------------------------------------------------------------- dispatch


@dataclasses.dataclass
class Stepper:
    """The train step of a run, as its loop compiles and calls it: a batch of numpy arrays, a state that moves."""

    config: RunConfig
    model: ModelConfig
    batch: int
    length: int

    def __post_init__(self) -> None:
        train = self.config.train
        schedule = train.schedule.make(train.learning_rate, train.steps)
        optimizer = make_optimizer(train.optimizer, schedule, train.gradient_clip, train.groups)
        devices = devices_of(train)
        model = self.model

        def init() -> Any:
            return init_state(model, optimizer, 0)

        self.state = devices.begin(init)
        self._step = devices.step(make_train_step(optimizer, seed=0, packed=False), jax.eval_shape(init))
        shape = (self.batch, self.length)
        tokens = np.random.default_rng(0).integers(0, model.vocab_size or 2, shape, dtype=np.int32)
        self._batch = {"inputs": tokens, "targets": tokens, "segment": np.ones(shape, np.int32)}
        self._batch["weights"] = np.ones(shape, np.float32)

    def turn(self) -> tuple[float, float, float]:
        """Milliseconds until the call returns, of this thread until then, and until the results are there. The state
        before is there already."""
        jax.block_until_ready(self.state)
        began, used = time.perf_counter(), time.thread_time()
        self.state, metrics = self._step(self.state, self._batch)
        returned, own = time.perf_counter(), time.thread_time()
        jax.block_until_ready((self.state, metrics))
        return 1e3 * (returned - began), 1e3 * (own - used), 1e3 * (time.perf_counter() - began)


def dispatch_table(sizes: Sizes, rounds: int) -> Table:
    config = load_config([LAPTOP])
    model = with_sizes(config.model, 1024, 128)
    smallest: Any = {"width": 8, "vocab_size": 8, "train_length": 8}
    cases = {
        "laptop, a batch of 16 x 128": Stepper(config, model, 16, 128),
        "as many arrays of width 8, a batch of 1 x 8": Stepper(config, dataclasses.replace(model, **smallest), 1, 8),
    }
    rows = []
    for name, stepper in cases.items():
        for _ in range(3):
            stepper.turn()
        turns = [stepper.turn() for _ in range(10 * rounds)]
        returned, own, done = ([times[i] for times in turns] for i in range(3))
        met = verdict(time=median_at_least([-one for one in returned], -1.0))
        times = [spread(one, ".2f") for one in (returned, own, done)]
        rows.append([name, str(len(jax.tree.leaves(stepper.state))), *times, met])
    return Table(
        "Dispatch: host time of a train step",
        "The call should return in under 1 ms: what Python, the arguments and the runtime take, not awaited. A CPU may "
        "begin with the work before that; the same step with next to nothing to compute shows what remains, and its "
        "time to the end is a bound from above. The thread's own time leaves out what other work took.",
        ("step", "arrays", "ms until it returns", "ms of the thread", "ms until it is done", "as it should"),
        rows,
    )


# --------------------------------------------------------------------------------------------------------------- data


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """This thread, and those it starts, on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def data_table(sizes: Sizes, rounds: int) -> Table:
    rows, batch = [], RunConfig().train.batch_size
    for length in sizes.lengths:
        dataset = dataclasses.replace(sizes.data, sequence_length=length).prepare()
        wall, cpu = [], []
        with one_core():
            iterator = dataset.batches(batch, 0)
            next(iterator)
            count = max(1, sizes.drawn // (batch * length))
            for _ in range(rounds):
                began, used = time.perf_counter(), time.process_time()
                for _ in range(count):
                    next(iterator)
                wall.append(count * batch * length / (time.perf_counter() - began) / 1e6)
                cpu.append(count * batch * length / (time.process_time() - used) / 1e6)
        met = verdict(speed=median_at_least(wall, 5.0))
        rows.append([str(length), str(batch), spread(wall, ".1f"), spread(cpu, ".1f"), met])
    return Table(
        "Data: batches as training draws them, on one core",
        "At least 5 million tokens per second. Those per second of the processor leave out what other work took.",
        ("tokens of a sequence", "sequences", "million tokens/s", "per CPU second", "as it should"),
        rows,
    )


PARTS = {
    "attention": attention_table,
    "cross_entropy": cross_entropy_table,
    "dispatch": dispatch_table,
    "data": data_table,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="which tables (default: all)")
    parser.add_argument("--rounds", type=int, default=10, help="turns (default 10)")
    parser.add_argument("--threads", type=int, default=len(cores()), help="of XLA (default: all cores)")
    parser.add_argument("--no-times", action="store_true", help="memory and errors only")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    prepare_jax(options.threads)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    for name in options.only:
        print(PARTS[name](SIZES, 0 if options.no_times else options.rounds).markdown() + "\n", flush=True)
    print(f"Threads: {options.threads}; load of the machine before: {busy:.1f}.")
    return 0


if __name__ == "__main__":
    sys.exit(as_a_worker(main))
