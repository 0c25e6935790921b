"""p-RoPE: rotary positions without the lowest frequencies."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax import Array

from jaxgpt.nn.position.base import PositionConfig, PositionDims
from jaxgpt.nn.position.rope_scaling import Spectrum
from jaxgpt.nn.position.rotary import Rope, RopeConfig
from jaxgpt.registry import register


@register("p_rope")
@dataclasses.dataclass(frozen=True)
class PRopeConfig(RopeConfig):
    """Rotary positions in which only the fastest pairs turn: of r/2 the first int(p * r // 2); the others carry meaning
    that no distance disturbs (Barbero et al. 2024, arXiv:2410.06205, section 6.1). Frequencies are those of rope,
    theta^(-2i/r): unlike rope with `fraction=p`, which spreads the whole range of them over fewer pairs.

    p: 1 is rope bit for bit, 0 is NoPE; the paper's best is 0.75.
    theta, layout, fraction, scaling: as rope.
    """

    p: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.p <= 1:
            raise ValueError(f"p: {self.p} must be between 0 and 1")

    def make(self, dims: PositionDims, key: Array) -> Rope:
        self.check(dims)
        return Rope(self, self._spectrum(dims))

    def _spectrum(self, dims: PositionDims) -> Spectrum:
        whole = super()._spectrum(dims)
        return FastSpectrum(whole.theta, whole.width, whole.train_length, int(self.p * whole.width // 2))

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return (cls(),)  # layouts and fractions are rope's


@dataclasses.dataclass(frozen=True)
class FastSpectrum(Spectrum):
    """Rotary frequencies of which all but the first `turning` are 0."""

    turning: int = 0  # pairs

    def frequencies(self) -> np.ndarray:
        """float64 [r/2], radians per token."""
        return np.where(np.arange(self.width // 2) < self.turning, super().frequencies(), 0.0)
