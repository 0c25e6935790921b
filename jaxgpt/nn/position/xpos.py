"""xPos: rotary positions whose scores also fade with distance.

Shapes: B batch, T tokens, N heads, H head width, r rotary width.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.nn.position.base import PositionConfig, PositionDims, Positions
from jaxgpt.nn.position.rope_scaling import Spectrum
from jaxgpt.nn.position.rotary import Rope, RopeConfig
from jaxgpt.registry import register

LARGEST = 35.0  # of the exponents of e: a query's factor times a key's, e^70, and what both multiply stay in float32


@register("xpos")
@dataclasses.dataclass(frozen=True)
class XposConfig(RopeConfig):
    """Rotary positions with decay (Sun et al. 2022, arXiv:2212.10554, equation 8 and algorithm 1): pair p of a query at
    i is multiplied by zeta_p^((i - c) / 512), that of a key at j by zeta_p^(-(j - c) / 512), so that a score fades as
    zeta_p^((i - j) / 512); zeta_p = (2p + 0.4 r) / (1.4 r). For causal models: towards later keys scores would grow.

    The centre c is fixed, so that cached keys are those of a full pass. It cancels; it only keeps the factors small.
    float32 ends the exactness: factors stop at e^35 and e^-35, which pair p reaches 512 * 35 / ln(1/zeta_p) tokens from
    the centre (the fastest pair, zeta = 2/7: 14,304; the slowest of 32: 800,000). Between two tokens beyond that a pair
    does not fade, between one within and one beyond less than it should. Everything stays finite.

    scale_base: tokens over which pair p fades by zeta_p.
    center: c in tokens; by default half the training length.
    theta, layout, fraction, scaling: as rope.
    """

    scale_base: float = 512.0
    center: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_base <= 0:
            raise ValueError(f"scale_base: {self.scale_base} must be greater than 0")

    def make(self, dims: PositionDims, key: Array) -> Xpos:
        self.check(dims)
        center = dims.train_length // 2 if self.center is None else self.center
        return Xpos(self, self._spectrum(dims), self.scale_base, center)

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return (cls(),)  # layouts and fractions are rope's


class Xpos(Rope):
    def __init__(self, config: RopeConfig, spectrum: Spectrum, scale_base: float, center: int):
        super().__init__(config, spectrum)
        self.scale_base, self.center = scale_base, center

    def log_factors(self, positions: Positions) -> Array:
        """float32 [B or 1, T, r/2]: the logarithm of what multiplies queries; keys get the opposite."""
        width = self.spectrum.width
        zeta = (np.arange(0, width, 2) + 0.4 * width) / (1.4 * width)
        pace = jnp.asarray(np.log(zeta) / self.scale_base, jnp.float32)
        exponents = (positions.position - self.center).astype(jnp.float32)[:, :, None] * pace[None, None]
        return jnp.clip(exponents, -LARGEST, LARGEST)

    def queries(self, q_BTNH: Array, positions: Positions) -> Array:
        return self._faded(q_BTNH, positions, 1.0)

    def keys(self, k_BSKH: Array, positions: Positions) -> Array:
        return self._faded(k_BSKH, positions, -1.0)

    def _faded(self, x_BTNH: Array, positions: Positions, sign: float) -> Array:
        cos, sin = self.tables(positions)
        factors = jnp.exp(sign * self.log_factors(positions))
        return self.turn(x_BTNH, cos * factors, sin * factors)
