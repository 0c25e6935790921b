"""What every positional encoding should compute: its formula once more, in float64 numpy, one plain step at a time.

Golden tests compare the encodings with these, and `numerics.py` measures by how much float32 and bfloat16 miss them.

Shapes: T queries, S keys, N heads, H head width, r rotary width, D model width. Positions are int arrays [T] and [S].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from flax import nnx

from jaxgpt.nn.position.absolute import LearnedConfig, SinusoidalConfig
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import NopeConfig, PositionConfig, PositionDims, PositionEncoding
from jaxgpt.nn.position.fire import FireConfig
from jaxgpt.nn.position.kerple import KerpleConfig
from jaxgpt.nn.position.longrope import LongRopeConfig
from jaxgpt.nn.position.p_rope import PRopeConfig
from jaxgpt.nn.position.rope_scaling import (
    DynamicNtkConfig,
    LinearConfig,
    Llama3Config,
    NtkConfig,
    ScalingConfig,
    YarnConfig,
)
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.position.sandwich import SandwichConfig
from jaxgpt.nn.position.t5 import T5Config
from jaxgpt.nn.position.xpos import XposConfig

Parameters = Mapping[str, np.ndarray]


def parameters_of(encoding: PositionEncoding) -> Parameters:
    """Name -> float64 array."""
    parameters = nnx.to_flat_state(nnx.state(encoding, nnx.Param))
    return {str(path[-1]): np.asarray(parameter[...], np.float64) for path, parameter in parameters}


# ------------------------------------------------------------------------------------------- biases, float64 [N, T, S]


def _distances(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return np.abs(i[:, None] - j[None, :]).astype(np.float64)


def alibi(config: AlibiConfig, dims: PositionDims, parameters: Parameters, i, j) -> np.ndarray:
    """-m n, by the recursion of the authors' code for the slopes."""

    def slopes(heads: int) -> list[float]:
        below = 2 ** int(math.log2(heads))
        if below == heads:
            return [2.0 ** (-8 * h / heads) for h in range(1, heads + 1)]
        return slopes(below) + slopes(2 * below)[0::2][: heads - below]

    return -np.array(slopes(dims.num_heads))[:, None, None] * _distances(i, j)


def t5(config: T5Config, dims: PositionDims, parameters: Parameters, i, j) -> np.ndarray:
    """Rows of the table, by the bucket formula of T5 for one direction."""
    assert dims.causal
    assert config.bidirectional is not True
    exact = config.num_buckets // 2
    furthest = config.max_distance or max(min(128, dims.train_length // 2), exact + 1)
    n = np.maximum(i[:, None] - j[None, :], 0)
    steps = np.log(np.maximum(n, exact) / exact) / math.log(furthest / exact) * (config.num_buckets - exact)
    far = np.minimum(exact + np.floor(steps + 1e-9).astype(int), config.num_buckets - 1)
    return np.moveaxis(parameters["table"][np.where(n < exact, n, far)], -1, 0)


def kerple(config: KerpleConfig, dims: PositionDims, parameters: Parameters, i, j) -> np.ndarray:
    """-p ln(1 + a n) or -a n^p, both at least 1e-2."""
    p, a = (np.maximum(parameters[name], 1e-2)[:, None, None] for name in ("p", "a"))
    n = _distances(i, j)
    return -p * np.log(1 + a * n) if config.form == "log" else -a * n ** np.minimum(p, 2.0)


def fire(config: FireConfig, dims: PositionDims, parameters: Parameters, i, j) -> np.ndarray:
    """MLP(psi(n) / psi(max(i, t)))."""

    def psi(x):
        return np.log(np.abs(parameters["c"] * x) + 1)

    threshold = abs(parameters["multiplier"] * dims.train_length)
    ratio = psi(_distances(i, j)) / (psi(np.maximum(i, threshold))[:, None] + 1e-6)
    hidden = np.maximum(ratio[..., None] * parameters["first"] + parameters["first_bias"], 0)
    return np.moveaxis(hidden @ parameters["second"], -1, 0)


def sandwich(config: SandwichConfig, dims: PositionDims, parameters: Parameters, i, j) -> np.ndarray:
    """The sum of cosines of the distance, per head."""
    pairs = np.arange(1, config.width // 2 + 1)
    angles = _distances(i, j)[..., None] / 10_000.0 ** (2 * pairs / config.width)
    ratios = np.arange(1, dims.num_heads + 1) * 8 / dims.num_heads
    return (np.cos(angles).sum(-1) - config.width / 2)[None] / ratios[:, None, None]


# ------------------------------------------------------------------------------------ embeddings, float64 [T, D] to add


def learned(config: LearnedConfig, dims: PositionDims, parameters: Parameters, i) -> np.ndarray:
    """Rows of the table, the last one for all beyond."""
    return parameters["table"][np.minimum(i, len(parameters["table"]) - 1)]


def sinusoidal(config: SinusoidalConfig, dims: PositionDims, parameters: Parameters, i) -> np.ndarray:
    """sin and cos of position * theta^(-2p/D), by turns."""
    angles = i[:, None] * _frequencies(config.theta, dims.width)
    scale = dims.embedding_std if config.scale is None else config.scale
    return scale * np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(i), -1)[:, : dims.width]


# ------------------------------------------------------- rope scalings: float64 [r/2] frequencies, and the temperature


def linear(scaling: LinearConfig, theta: float, width: int, original: int, length: int) -> tuple[np.ndarray, float]:
    return _frequencies(theta, width) / scaling.factor, 1.0


def ntk(scaling: NtkConfig, theta: float, width: int, original: int, length: int) -> tuple[np.ndarray, float]:
    """The base times s^(r/(r-2))."""
    return _frequencies(theta * scaling.factor ** (width / (width - 2)), width), 1.0


def dynamic_ntk(
    scaling: DynamicNtkConfig, theta: float, width: int, original: int, length: int
) -> tuple[np.ndarray, float]:
    """The base times (s l/L - (s - 1))^(r/(r-2)), l = max(length, L)."""
    stretch = scaling.factor * max(length, original) / original - (scaling.factor - 1)
    return _frequencies(theta * stretch ** (width / (width - 2)), width), 1.0


def yarn(scaling: YarnConfig, theta: float, width: int, original: int, length: int) -> tuple[np.ndarray, float]:
    """A mix of theta_p / s and theta_p, over pair indices or over turns within L; the temperature 0.1 ln s + 1."""
    plain = _frequencies(theta, width)
    if scaling.ramp == "rotations":
        turns = original * plain / (2 * math.pi)
        kept = (turns - scaling.beta_slow) / (scaling.beta_fast - scaling.beta_slow)
    else:
        ends = [
            width * math.log(original / (beta * 2 * math.pi)) / (2 * math.log(theta))
            for beta in (scaling.beta_fast, scaling.beta_slow)
        ]
        if scaling.truncate:
            ends = [math.floor(ends[0]), math.ceil(ends[1])]
        low, high = max(ends[0], 0), min(ends[1], width - 1)
        kept = 1 - (np.arange(width // 2) - low) / (high - low)
    kept = np.clip(kept, 0, 1)
    temperature = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1
    return kept * plain + (1 - kept) * plain / scaling.factor, temperature


def llama3(scaling: Llama3Config, theta: float, width: int, original: int, length: int) -> tuple[np.ndarray, float]:
    """By wavelength: kept below L / high, interpolated above L / low, blended between."""
    plain = _frequencies(theta, width)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = (original / (2 * math.pi / plain) - low) / (high - low)
    kept = np.clip(kept, 0, 1)
    return (1 - kept) * plain / scaling.factor + kept * plain, 1.0


def longrope(scaling: LongRopeConfig, theta: float, width: int, original: int, length: int) -> tuple[np.ndarray, float]:
    """theta_p over the pair's factor, of the long list beyond L; the temperature sqrt(1 + ln s / ln L)."""
    long = length > original
    given = scaling.long_factors if long else scaling.short_factors
    factors = np.array(given or [scaling.factor if long else 1.0])
    temperature = scaling.attention_factor or math.sqrt(1 + math.log(scaling.factor) / math.log(original))
    return _frequencies(theta, width) / factors, temperature


def _frequencies(theta: float, width: int) -> np.ndarray:
    return theta ** (-np.arange(0, width, 2) / width)


SCALINGS: dict[type[ScalingConfig], Callable[..., tuple[np.ndarray, float]]] = {
    LinearConfig: linear,
    NtkConfig: ntk,
    DynamicNtkConfig: dynamic_ntk,
    YarnConfig: yarn,
    Llama3Config: llama3,
    LongRopeConfig: longrope,
}

# ------------------------------------------------------------------------------ float64 [N, T, S] in the place of q.k


def tempered(config: NopeConfig, dims: PositionDims, q_TNH, k_SNH, i, j) -> np.ndarray:
    """Queries times 1 + a ln(floor((i + 1) / floor) + 1)."""
    factors = 1 + config.query_temperature * np.log((i + 1) // config.temperature_floor + 1.0)
    return np.einsum("TNH,SNH->NTS", q_TNH * factors[:, None, None], k_SNH)


def rotary(config: RopeConfig, dims: PositionDims, q_TNH, k_SNH, i, j) -> np.ndarray:
    """Pairs of dimensions as complex numbers, q conj(k) exp(i theta_p (i - j)), the real part summed over pairs; xpos
    also times zeta_p^((i - j) / 512), a scaling's temperature squared. What does not turn is added as it is."""
    width, temperature = int(dims.head_dim * config.fraction), 1.0
    frequencies = _frequencies(config.theta, width)
    if config.scaling is not None:
        original = config.scaling.original_length or dims.train_length
        scaled = SCALINGS[type(config.scaling)]
        frequencies, temperature = scaled(config.scaling, config.theta, width, original, int(max(i.max(), j.max())) + 1)
    if isinstance(config, PRopeConfig):
        frequencies[int(config.p * width // 2) :] = 0
    ahead = (i[:, None] - j[None, :]).astype(np.float64)[..., None]
    factors = np.exp(1j * ahead * frequencies)
    if isinstance(config, XposConfig):
        zeta = (np.arange(0, width, 2) + 0.4 * width) / (1.4 * width)
        factors = factors * zeta ** (ahead / config.scale_base)
    pairs_q, pairs_k = (_pairs(x[..., :width], config.layout == "half_split") for x in (q_TNH, k_SNH))
    turned = temperature**2 * np.einsum("TNP,SNP,TSP->NTS", pairs_q, pairs_k.conj(), factors).real
    return turned + np.einsum("TNH,SNH->NTS", q_TNH[..., width:], k_SNH[..., width:])


def _pairs(x: np.ndarray, half_split: bool) -> np.ndarray:
    half = x.shape[-1] // 2
    return x[..., :half] + 1j * x[..., half:] if half_split else x[..., ::2] + 1j * x[..., 1::2]


BIASES: dict[type[PositionConfig], Callable[..., np.ndarray]] = {
    AlibiConfig: alibi,
    T5Config: t5,
    KerpleConfig: kerple,
    FireConfig: fire,
    SandwichConfig: sandwich,
}
EMBEDDINGS: dict[type[PositionConfig], Callable[..., np.ndarray]] = {
    LearnedConfig: learned,
    SinusoidalConfig: sinusoidal,
}
PRODUCTS: dict[type[PositionConfig], Callable[..., np.ndarray]] = {
    NopeConfig: tempered,
    RopeConfig: rotary,
    XposConfig: rotary,
    PRopeConfig: rotary,
}


def scores(config: PositionConfig, dims: PositionDims, parameters: Parameters, q_TNH, k_SNH, i, j) -> np.ndarray:
    """float64 [N, T, S]: q.k / sqrt(H) with whatever the encoding changes of it. Raises KeyError for an encoding that
    has no formula here."""
    if type(config) in PRODUCTS:
        return PRODUCTS[type(config)](config, dims, q_TNH, k_SNH, i, j) / math.sqrt(dims.head_dim)
    products = np.einsum("TNH,SNH->NTS", q_TNH, k_SNH) / math.sqrt(dims.head_dim)
    return products + BIASES[type(config)](config, dims, parameters, i, j)
