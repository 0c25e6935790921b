"""By how much float32 and bfloat16 miss each positional encoding's formula, at positions up to a million.

    python experiments/numerics.py    # under a minute; writes experiments/results/numerics.md

One query at each position attends to keys 0 to 1000 tokens before it, to keys at half its position and at 0. Queries
and keys are standard normal, rounded to the type of the activations; the formula in float64 (`oracles.py`) gets the
rounded numbers, so that only what the encoding adds is measured. Errors are the largest over keys and heads.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt import registry
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.nn.position.rope_scaling import ScalingConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.position.t5 import T5Config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from experiments import oracles

DIMS = PositionDims(width=128, head_dim=32, num_heads=4, train_length=1024)
POSITIONS = {"1k": 1_000, "32k": 32_000, "1M": 1_000_000}
TYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
DISTANCES = (0, 1, 2, 3, 5, 8, 16, 32, 64, 128, 256, 500, 1000)
NOTES = {
    "alibi": "the bias is exact below 2^24 tokens; adding q.k to so large a number rounds it",
    "fire": "from the query's own position, which float32 holds",
    "kerple": "relative to the size, which `power` makes large: n^2 is at most 10^12",
    "learned": "a table look-up: as exact as the type that holds the sum",
    "linear": "as rope, of angles divided by the factor",
    "ntk": "as rope",
    "dynamic_ntk": "frequencies follow the length, in float32: another rounding for the slow pairs",
    "yarn": "as rope, times the temperature squared",
    "llama3": "as rope",
    "longrope": "as rope, times the temperature squared",
    "nope": "the products alone, and the queries' temperature",
    "p_rope": "as rope, for the pairs that turn",
    "rope": "angles are off by up to position * 2^-23 radians, in queries and in keys",
    "sandwich": "angles are those of the distance, so it is far keys that are off",
    "sinusoidal": "angles are off by up to position * 2^-23 radians, times the scale of 0.02",
    "t5": "a table look-up by whole numbers",
    "xpos": "float32 cannot represent it beyond 14,304 tokens from the centre, where fading stops (see its docstring)",
}


def scores(encoding: PositionEncoding, q_BTNH: Array, k_BSKH: Array, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """float32 [N, T, S], as attention computes them: queries and keys in their type, products and biases float32."""

    @jax.jit
    def run(encoding, q, k, i, j):
        q_at, k_at = (Positions(where, where, jnp.ones_like(where)) for where in (i, j))
        turned = encoding.queries(q, q_at), encoding.keys(k, k_at)
        products = jnp.einsum("BTNH,BSNH->BNTS", *turned, preferred_element_type=jnp.float32)
        products = products * DIMS.head_dim**-0.5
        return products + encoding.bias(q_at, k_at) if encoding.has_bias else products

    return np.asarray(run(encoding, q_BTNH, k_BSKH, jnp.asarray(i)[None], jnp.asarray(j)[None]))[0]


def error(config: PositionConfig, position: int, dtype: jnp.dtype) -> tuple[float, float]:
    """The largest error and the largest size of what the formula gives. Raises KeyError where there is no formula."""
    encoding = config.make(DIMS, jax.random.key(0))
    parameters = oracles.parameters_of(encoding)
    i, j = np.array([position]), np.array([*(position - np.array(DISTANCES)), position // 2, 0])
    draw = np.random.default_rng(0).standard_normal
    if type(config) in oracles.EMBEDDINGS:
        x = jnp.asarray(draw((1, 1, DIMS.width)) * DIMS.embedding_std, dtype)
        where = jnp.asarray(i)[None]
        found = jax.jit(encoding.embed)(x, Positions(where, where, jnp.ones_like(where)))[0]
        wanted = np.asarray(x[0], np.float64) + oracles.EMBEDDINGS[type(config)](config, DIMS, parameters, i)
    else:
        q, k = (jnp.asarray(draw((1, len(at), DIMS.num_heads, DIMS.head_dim)), dtype) for at in (i, j))
        found = scores(encoding, q, k, i, j)
        exact_q, exact_k = (np.asarray(x[0], np.float64) for x in (q, k))
        wanted = oracles.scores(config, DIMS, parameters, exact_q, exact_k, i, j)
    return float(np.abs(np.asarray(found, np.float64) - wanted).max()), float(np.abs(wanted).max())


def spelled(config: object) -> str:
    """`rope (fraction=0.5)`: the kind and what differs from its defaults."""
    default = type(config)()
    changed = [
        f"{name}={spelled(value) if dataclasses.is_dataclass(value) else _short(value)}"
        for name, value in vars(config).items()
        if value != getattr(default, name)
    ]
    return registry.kind_of(config) + (f" ({', '.join(changed)})" if changed else "")


def _short(value: object) -> str:
    return f"{value[0]:g} to {value[-1]:g}" if isinstance(value, tuple) else str(value)


def measured_configs() -> list[tuple[str, PositionConfig]]:
    """(key of NOTES, config) for every example of every encoding and every rope scaling that has a formula."""
    found: list[tuple[str, PositionConfig]] = [
        (kind, config)
        for kind, config_class in registry.kinds(PositionConfig).items()
        if config_class in oracles.EMBEDDINGS | oracles.BIASES | oracles.PRODUCTS
        for config in config_class.examples()
        if not (isinstance(config, T5Config) and config.bidirectional)  # for encoders
    ]
    for kind, scaling in registry.kinds(ScalingConfig).items():
        found += [(kind, RopeConfig(scaling=config)) for config in scaling.examples()]
    return found


def rows() -> list[list[str]]:
    """A line of the table for each of them."""
    found = []
    for note, config in measured_configs():
        limit = config.make(DIMS, jax.random.key(0)).max_length
        there = [at for at in POSITIONS.values() if limit is None or at < limit]
        measured = {(name, at): error(config, at, dtype) for name, dtype in TYPES.items() for at in there}
        cells = [measured.get((name, at)) for name in TYPES for at in POSITIONS.values()]
        shown = ["—" if cell is None else f"{cell[0]:.1e}" for cell in cells]
        size = max(size for _, size in measured.values())
        found.append([f"`{spelled(config)}`", f"{size:.3g}", *shown, NOTES[note]])
    return found


def table(rows: list[list[str]]) -> str:
    """Markdown."""
    head = ["encoding", "size", *(f"{name} {at}" for name in TYPES for at in POSITIONS), "note"]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    text = f"""# Accuracy of the positional encodings

Largest absolute error of attention scores (of embeddings: `learned`, `sinusoidal`) against the formula in float64, by
the type of the activations and the position of the query, whose keys stand 0 to 1000 tokens before it, half way and at
0. Positions, angles, slopes and biases are float32 in both; `size` is the largest number the formula gives. Head width
{DIMS.head_dim}, training length {DIMS.train_length}. A dash: no value there. Left out are `randomised`, which changes
no number itself, and attention kinds that find positions in the content (`fox`, `cope`).

{table(rows())}

Made by `python experiments/numerics.py` (jax {jax.__version__}, {jax.default_backend()}).
"""
    path = Path(__file__).resolve().parent / "results" / "numerics.md"
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
