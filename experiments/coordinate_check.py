"""Do activations stay as large in wide models while they train? In the standard parametrisation and in muP.

    python experiments/coordinate_check.py [--widths 64 128 256 512 1024] [--seeds 3] [--set PATH=VALUE ...] [--out DIR]

The coordinate check of Yang et al. 2022 (Tensor Programs V, arXiv:2203.03466, appendix D.1): models of several widths
take a few steps on one batch at one learning rate. Where the parametrisation is right, the mean size of every
activation becomes independent of the width, before training and after every step; where it is not, it grows or shrinks
as a power of the width, and no learning rate suits all.

The narrowest model is muP's base, the same in both. `--set` changes what is trained, as for `python -m jaxgpt.train`:
`--set model.feedforward.type=moe` or `train.optimizer.type=muon`. Two minutes on two cores. Writes
coordinate_check.png, results.csv and README.md into `experiments/results/coordinate_check`, or DIR.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from jaxgpt.config import decode, merge, override, parse_overrides
from jaxgpt.errors import UserError
from jaxgpt.experiment.report.series import log_ticks
from jaxgpt.experiment.report.style import GRID, INK, MARKERS, MUTED, log2_axis, picture
from jaxgpt.files import write_atomic
from jaxgpt.launch.machine import cores
from jaxgpt.models.decoder import Decoder
from jaxgpt.train.environment import prepare_jax
from jaxgpt.train.groups import make_optimizer
from jaxgpt.train.run import RunConfig, encode_defaults, with_sizes
from jaxgpt.train.step import init_state, make_train_step

STEPS = 4
SETTINGS = {"model": {"num_layers": 2}, "data": {"sequence_length": 64}, "train": {"batch_size": 8}}
QUANTITIES = {
    "embedding": "embedding",
    "mixer": "mixer output",
    "feedforward": "feed-forward output",
    "residual": "residual stream",
    "logits": "logits",
}
NAMES = {"standard": "standard", "mup": "muP"}
SHADES = ("#b7c4cf", "#7fb2d6", "#3d8fc4", "#0072B2", "#12395c")  # from before training to the last step


class Measured(NamedTuple):
    """The mean size of an activation, over tokens, layers and channels."""

    parametrisation: str
    quantity: str
    step: int
    width: int
    seed: int
    size: float


def configuration(parametrisation: str, width: int, base: int, settings: Sequence[str]) -> RunConfig:
    """The run at a width; in muP its base model has the width `base`."""
    mup = [f"model.mup_base.width={base}"] if parametrisation == "mup" else []
    pairs = parse_overrides([*settings, f"model.width={width}", *mup])
    return decode(RunConfig, override(merge(encode_defaults(), SETTINGS), pairs))


@jax.jit
def sizes(model: Decoder, tokens_BT: Array) -> dict[str, Array]:
    """Mean absolute value by name of QUANTITIES."""
    output = model(tokens_BT, capture=("mixer", "feedforward", "residual"))
    embedded = model.embedding[...][tokens_BT] * model.config.embedding_factor
    found = {"embedding": embedded, "logits": output.logits, **output.aux}
    return {name: jnp.mean(jnp.abs(found[name].astype(jnp.float32))) for name in QUANTITIES}


def measure(config: RunConfig, seed: int) -> list[dict[str, float]]:
    """Sizes before training and after every one of STEPS steps on one batch, as the training loop takes them at a
    constant learning rate."""
    train, dataset = config.train, config.data.prepare()
    model = with_sizes(config.model, dataset.tokenizer.vocab_size, config.data.sequence_length)
    schedule = optax.constant_schedule(train.learning_rate)
    optimizer = make_optimizer(train.optimizer, schedule, train.gradient_clip, train.groups, model.growth())
    batch: Mapping[str, Any] = next(dataset.batches(train.batch_size, seed))
    step = jax.jit(make_train_step(optimizer, seed=seed, packed=dataset.packed), donate_argnums=0)
    state = jax.jit(lambda seed: init_state(model, optimizer, seed))(jnp.uint32(seed))
    found = []
    for number in range(STEPS + 1):
        found.append({name: float(size) for name, size in sizes(state.model, batch["inputs"]).items()})
        if number < STEPS:
            state, _ = step(state, batch)
    return found


def check(widths: Sequence[int], seeds: int, settings: Sequence[str]) -> list[Measured]:
    """Everything, the narrowest width being the base's."""
    rows = []
    for parametrisation in NAMES:
        for width in widths:
            config = configuration(parametrisation, width, min(widths), settings)
            for seed in range(seeds):
                for step, found in enumerate(measure(config, seed)):
                    rows += [Measured(parametrisation, name, step, width, seed, size) for name, size in found.items()]
            print(f"{NAMES[parametrisation]}, width {width}: done", file=sys.stderr, flush=True)
    return rows


# ------------------------------------------------------------------------------------------------------------- results


def curve(rows: Sequence[Measured], parametrisation: str, quantity: str, step: int) -> dict[int, float]:
    """Width -> geometric mean over seeds."""
    of_width: dict[int, list[float]] = {}
    for row in rows:
        if (row.parametrisation, row.quantity, row.step) == (parametrisation, quantity, step):
            of_width.setdefault(row.width, []).append(row.size)
    return {width: float(np.exp(np.mean(np.log(found)))) for width, found in sorted(of_width.items())}


def slope(rows: Sequence[Measured], parametrisation: str, quantity: str, step: int) -> float:
    """The power of the width that sizes go by: least squares on both logarithms."""
    points = curve(rows, parametrisation, quantity, step)
    return float(np.polyfit(np.log(list(points)), np.log(list(points.values())), 1)[0])


def table(rows: Sequence[Measured]) -> str:
    """Markdown: slopes by activation and step."""
    lines = [["activation", "parametrisation", *(f"t={step}" for step in range(STEPS + 1))]]
    lines.append(["---"] * len(lines[0]))
    for quantity, label in QUANTITIES.items():
        for parametrisation, name in NAMES.items():
            slopes = [slope(rows, parametrisation, quantity, step) for step in range(STEPS + 1)]
            lines.append([label, name, *(f"{one:+.2f}" for one in slopes)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comma_separated(rows: Sequence[Measured]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Measured._fields)
    writer.writerows([*row[:-1], f"{row.size:.6g}"] for row in rows)
    return text.getvalue()


# -------------------------------------------------------------------------------------------------------------- figure


def draw(rows: Sequence[Measured]) -> Figure:
    """A row of panels for each parametrisation, a panel for each activation, a line for each step."""
    figure = Figure(figsize=(13.0, 5.4), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(NAMES), len(QUANTITIES), sharex=True, sharey="col")
    widths = sorted({row.width for row in rows})
    for line, parametrisation in enumerate(NAMES):
        for axes, quantity in zip(grid[line], QUANTITIES, strict=True):
            _panel(axes, [curve(rows, parametrisation, quantity, step) for step in range(STEPS + 1)])
            log2_axis(axes, widths, [str(width) for width in widths])
            last = slope(rows, parametrisation, quantity, STEPS)
            note = f"t={STEPS}: width$^{{{last:+.2f}}}$"
            axes.annotate(note, (0.05, 0.93), xycoords="axes fraction", fontsize=9.5, color=INK, va="top")
        grid[line][0].set_ylabel(f"{NAMES[parametrisation]}\nmean |x|", fontsize=10, color=INK)
    for column, (quantity, label) in enumerate(QUANTITIES.items()):
        grid[0][column].set_title(label, loc="left", fontsize=11, fontweight="bold", color=INK)
        grid[-1][column].set_xlabel("width", fontsize=10, color=MUTED)
        found = [row.size for row in rows if row.quantity == quantity]
        _heights(grid[0][column], min(found), max(found))
    lines = grid[0][0].get_lines()
    names = ["before training", *(f"t={step}" for step in range(1, STEPS + 1))]
    figure.legend(lines, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=10)
    return figure


def _panel(axes: Axes, curves: Sequence[Mapping[int, float]]) -> None:
    for points, shade, (marker, _) in zip(curves, SHADES, MARKERS, strict=False):
        style = {"marker": marker, "markersize": 4.5, "mec": "white", "mew": 0.6, "linewidth": 1.6}
        axes.plot(list(points), list(points.values()), color=shade, **style)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    for side in axes.spines.values():
        side.set_color(GRID)


def _heights(axes: Axes, low: float, high: float) -> None:
    """A logarithmic scale of at least one decade, so that what is flat looks flat, and room for the note on top."""
    middle = (low * high) ** 0.5
    low, high = min(low, middle / 3.2) / 1.15, max(high, middle * 3.2) * 1.9
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks = log_ticks(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())


# ---------------------------------------------------------------------------------------------------------------- page


def page(rows: Sequence[Measured], command: str) -> str:
    widths = sorted({row.width for row in rows})
    seeds = len({row.seed for row in rows})
    return f"""# Coordinate check

    {command}

![Mean size of activations against width, by step: in the standard parametrisation and in muP](coordinate_check.png)

Mean absolute activations of models of {len(widths)} widths from {widths[0]} to {widths[-1]}, before training (t=0) and
after each of {STEPS} steps on one batch, at one learning rate: geometric means of {seeds} seeds; every number is in
`results.csv`. The standard parametrisation draws all matrices with one deviation and moves them at one rate, as the
defaults do. muP's base is the narrowest model, which is the same in both.

The slope of log |x| by log width, 0 where an activation is as large in wide models as in narrow ones:

{table(rows)}

In muP, logits before training fall by the root of the width, as they should: they are sums of products that nothing has
aligned yet, and training replaces them.

Made with jax {jax.__version__} on {jax.default_backend()}.
"""


def main(arguments: list[str] | None = None) -> int:
    there = Path(__file__).resolve().parent / "results" / "coordinate_check"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 128, 256, 512, 1024], help="of the model")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--threads", type=int, default=len(cores()), help="of XLA (default: all cores)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE", help="what is trained")
    parser.add_argument("--out", type=Path, default=there, help="folder for the results")
    options = parser.parse_args(arguments)
    if len(set(options.widths)) < 2 or options.seeds < 1 or options.threads < 1:
        parser.error("--widths must be two at least, --seeds and --threads at least 1")
    prepare_jax(options.threads)
    try:
        rows = check(sorted(set(options.widths)), options.seeds, options.set)
    except UserError as error:
        parser.exit(1, f"{error}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    given = sys.argv[1:] if arguments is None else arguments
    text = page(rows, " ".join(["python experiments/coordinate_check.py", *given]))
    (options.out / "coordinate_check.png").write_bytes(picture(draw(rows), "png"))
    write_atomic(options.out / "results.csv", comma_separated(rows))
    write_atomic(options.out / "README.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
