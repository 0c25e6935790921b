"""LongRoPE: a factor per rotary pair, one list for short documents and one for long ones."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.rope_scaling import Frequencies, ScalingConfig, Spectrum
from jaxgpt.registry import register


@register("longrope")
@dataclasses.dataclass(frozen=True)
class LongRopeConfig(ScalingConfig):
    """Pair p turns at theta_p / short_p in documents of up to L tokens, at theta_p / long_p in longer ones; cos and sin
    grow by sqrt(1 + ln s / ln L) in both (Ding et al. 2024, arXiv:2402.13753, section 3; the form of transformers). The
    factors are given, such as those published with a model: searching for them is not done here.

    The length is each document's own, as for dynamic_ntk: keys are cached unrotated, and while a sequence is decoded
    beyond L its newest token sees what a full pass over the same tokens would.

    short_factors, long_factors: r/2 numbers, one per pair, each above 0. Without them 1 for every short pair and
        `factor` for every long one, which is linear interpolation beyond L.
    attention_factor: the temperature on cos and sin, if not the one above.
    """

    by_length: ClassVar[bool] = True

    short_factors: tuple[float, ...] | None = None
    long_factors: tuple[float, ...] | None = None
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("short_factors", "long_factors"):
            if any(factor <= 0 for factor in getattr(self, name) or ()):
                raise ValueError(f"{name}: {getattr(self, name)} must all be greater than 0")
        if self.attention_factor is not None and self.attention_factor <= 0:
            raise ValueError(f"attention_factor: {self.attention_factor} must be greater than 0")

    def check(self, spectrum: Spectrum) -> None:
        needed = spectrum.width // 2
        for name in ("short_factors", "long_factors"):
            given = getattr(self, name)
            if given is not None and len(given) != needed:
                raise ConfigError(
                    f"position.scaling.{name}: {len(given)} numbers are given and {needed} are needed, one for each "
                    f"pair of the rotary width {spectrum.width}"
                )
        if self.factor > 1 and self.attention_factor is None and self.original(spectrum) < 2:
            raise ConfigError(
                "position.scaling.original_length: 1 has no logarithm to divide by; give at least 2, or "
                "position.scaling.attention_factor"
            )

    def temperature(self, spectrum: Spectrum) -> float:
        """What multiplies cos and sin."""
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original(spectrum))) if self.factor > 1 else 1.0

    def scale(self, spectrum: Spectrum, lengths_BT: Array) -> tuple[Frequencies, float]:
        plain = spectrum.frequencies()
        short, long = (
            jnp.asarray(plain / np.array(given if given is not None else [otherwise]), jnp.float32)[None, None]
            for given, otherwise in ((self.short_factors, 1.0), (self.long_factors, self.factor))
        )
        beyond = lengths_BT[:, :, None] > self.original(spectrum)
        return jnp.where(beyond, long, short), self.temperature(spectrum)
