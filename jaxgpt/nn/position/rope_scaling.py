"""Scalings of rotary frequencies, to read sequences longer than those trained on.

A scaling returns frequencies and attention temperature together, so that the two cannot drift apart. Notation: r rotary
width, pair p in [0, r/2), theta_p = theta^(-2p/r) radians per token, L original length in tokens, s factor. A factor of
1 returns theta_p bit for bit.

Tables that do not depend on the input are computed in float64 on the host and rounded once.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.registry import register, slot


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The rotary frequencies before scaling."""

    theta: float  # base b
    width: int  # rotary width r, even
    train_length: int  # tokens

    def frequencies(self) -> np.ndarray:
        """float64 [r/2], radians per token: theta^(-2p/r)."""
        return self.theta ** (-np.arange(0, self.width, 2) / self.width)


Frequencies = np.ndarray | Array


@slot("scaling", package="jaxgpt.nn.position")
@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """How rotary frequencies change so that a model reads sequences longer than it was trained on.

    factor: s, how many times the original length is aimed at; 1 changes nothing (dynamic_ntk: up to L).
    original_length: L, tokens the weights were trained at; by default the model's training length.
    """

    by_length: ClassVar[bool] = False  # frequencies depend on the length of the input

    factor: float = 4.0
    original_length: int | None = None

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor: {self.factor} must be at least 1")
        if self.original_length is not None and self.original_length < 1:
            raise ValueError(f"original_length: {self.original_length} must be at least 1")

    def original(self, spectrum: Spectrum) -> int:
        """L in tokens."""
        return self.original_length or spectrum.train_length

    def check(self, spectrum: Spectrum) -> None:
        """Raise ConfigError where the scaling does not fit the spectrum."""

    def scale(self, spectrum: Spectrum, lengths_BT: Array) -> tuple[Frequencies, float]:
        """Frequencies, [r/2] or [B or 1, T, r/2], and the temperature that multiplies cos and sin of queries and keys
        (so scores by its square). `lengths_BT` is `Positions.lengths()`, for scalings that are `by_length`."""
        raise TypeError(f"{type(self).__qualname__} must define scale()")

    @classmethod
    def examples(cls) -> tuple[ScalingConfig, ...]:
        """Configurations that together exercise the scaling: what the contract test builds."""
        return (cls(),)


@register("linear")
@dataclasses.dataclass(frozen=True)
class LinearConfig(ScalingConfig):
    """Position interpolation: theta_p / s, which is positions / s (Chen et al. 2023, arXiv:2306.15595)."""

    def scale(self, spectrum: Spectrum, lengths_BT: Array) -> tuple[Frequencies, float]:
        return spectrum.frequencies() / self.factor, 1.0


def _stretch_exponents(spectrum: Spectrum) -> np.ndarray:
    """[r/2]: a base of b * g^(r/(r-2)) multiplies theta_p by g to this power, from 0 for pair 0 to -1 for the last."""
    return -np.arange(0, spectrum.width, 2) / (spectrum.width - 2)


def _check_stretch(spectrum: Spectrum) -> None:
    if spectrum.width < 4:
        raise ConfigError(
            f"position.scaling: changing the base needs a rotary width of at least 4, and it is {spectrum.width}; "
            "choose a wider head or position.scaling.type=linear"
        )


@register("ntk")
@dataclasses.dataclass(frozen=True)
class NtkConfig(ScalingConfig):
    """NTK-aware: the base becomes b * s^(r/(r-2)), so pair 0 is unchanged and the last pair is interpolated by s
    (bloc97 2023; Peng et al. 2023, arXiv:2309.00071, definition 1). Useful somewhat below s times the original length.
    """

    def check(self, spectrum: Spectrum) -> None:
        _check_stretch(spectrum)

    def scale(self, spectrum: Spectrum, lengths_BT: Array) -> tuple[Frequencies, float]:
        return spectrum.frequencies() * self.factor ** _stretch_exponents(spectrum), 1.0


@register("dynamic_ntk")
@dataclasses.dataclass(frozen=True)
class DynamicNtkConfig(ScalingConfig):
    """NTK-aware with a factor that grows with the input: g = s l/L - (s - 1), l = max(length, L); the base becomes
    b * g^(r/(r-2)) (the form of transformers; Peng et al. 2023, arXiv:2309.00071, section 3.3). Plain rope up to L.

    The length is each document's own, one more than its last position in the call (`Positions.lengths`). Every token of
    a longer document turns by other angles, so keys are cached unrotated. While a sequence is decoded beyond L, its
    newest token sees what a full pass over the same tokens would; earlier tokens were decoded with a smaller l.
    """

    by_length: ClassVar[bool] = True

    def check(self, spectrum: Spectrum) -> None:
        _check_stretch(spectrum)

    def scale(self, spectrum: Spectrum, lengths_BT: Array) -> tuple[Frequencies, float]:
        original = self.original(spectrum)
        beyond = jnp.maximum(lengths_BT - original, 0).astype(jnp.float32) / original
        stretch = 1 + self.factor * beyond  # g, written so that it is exactly 1 up to L
        exponents = jnp.asarray(_stretch_exponents(spectrum), jnp.float32)
        frequencies = jnp.asarray(spectrum.frequencies(), jnp.float32)
        return frequencies[None, None] * stretch[:, :, None] ** exponents[None, None], 1.0


@register("yarn")
@dataclasses.dataclass(frozen=True)
class YarnConfig(ScalingConfig):
    """YaRN: fast pairs stay, slow pairs are interpolated, a ramp between; scores are sharpened (Peng et al. 2023,
    arXiv:2309.00071, section 3).

    ramp: what the ramp is linear in. `index`, the form of the authors' code: the pair index, between the (fractional)
        pairs that turn beta_fast and beta_slow times within L. `rotations`, the form of the paper (section 3.2): the
        number of turns itself. At small L the two differ a lot.
    beta_fast, beta_slow: turns within L above which a pair stays, and below which it is fully interpolated.
    truncate: round the ramp's ends outwards to whole pairs (`index` only), as the authors' code does.
    attention_factor: the temperature m on cos and sin; scores grow by m^2. By default 0.1 ln(s) + 1.
    """

    ramp: Literal["index", "rotations"] = "index"
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta_fast > self.beta_slow > 0:
            raise ValueError(
                f"beta_fast: {self.beta_fast} must be greater than beta_slow ({self.beta_slow}), both above 0"
            )
        if self.attention_factor is not None and self.attention_factor <= 0:
            raise ValueError(f"attention_factor: {self.attention_factor} must be greater than 0")

    def bounds(self, spectrum: Spectrum) -> tuple[float, float]:
        """The pair indices (fractional unless `truncate`) where the `index` ramp begins and ends."""

        def pair_turning(times: float) -> float:
            length = self.original(spectrum)
            return spectrum.width * math.log(length / (times * 2 * math.pi)) / (2 * math.log(spectrum.theta))

        low, high = pair_turning(self.beta_fast), pair_turning(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        # The upper bound is the rotary width less 1, not the number of pairs less 1: as in the authors' code.
        return min(max(low, 0), spectrum.width - 1), min(max(high, 0), spectrum.width - 1)

    def interpolated(self, spectrum: Spectrum) -> np.ndarray:
        """float64 [r/2]: the share of each pair that is interpolated, 0 (stays) to 1 (theta_p / s)."""
        if self.ramp == "rotations":
            turns = self.original(spectrum) * spectrum.frequencies() / (2 * math.pi)
            return np.clip((self.beta_fast - turns) / (self.beta_fast - self.beta_slow), 0, 1)
        low, high = self.bounds(spectrum)
        return np.clip((np.arange(spectrum.width // 2) - low) / (high - low if high != low else 1e-3), 0, 1)

    def scale(self, spectrum: Spectrum, lengths_BT: Array) -> tuple[Frequencies, float]:
        frequencies, share = spectrum.frequencies(), self.interpolated(spectrum)
        temperature = 0.1 * math.log(self.factor) + 1 if self.attention_factor is None else self.attention_factor
        return frequencies + share * (frequencies / self.factor - frequencies), temperature

    @classmethod
    def examples(cls) -> tuple[ScalingConfig, ...]:
        return cls(), cls(ramp="rotations"), cls(truncate=False, attention_factor=1.0)


@register("llama3")
@dataclasses.dataclass(frozen=True)
class Llama3Config(ScalingConfig):
    """Llama 3.1: pairs are kept or interpolated by wavelength, with a blend linear in turns per L between (Llama team
    2024, arXiv:2407.21783; reference code llama-models, apply_scaling). The released models use L = 8192.

    low_frequency_factor: pairs that turn fewer times than this within L are fully interpolated.
    high_frequency_factor: pairs that turn more often than this stay.
    """

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.high_frequency_factor > self.low_frequency_factor:
            raise ValueError(
                f"high_frequency_factor: {self.high_frequency_factor} must be greater than "
                f"low_frequency_factor ({self.low_frequency_factor})"
            )

    def scale(self, spectrum: Spectrum, lengths_BT: Array) -> tuple[Frequencies, float]:
        frequencies = spectrum.frequencies()
        turns = self.original(spectrum) * frequencies / (2 * math.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        share = np.clip((high - turns) / (high - low), 0, 1)
        return frequencies + share * (frequencies / self.factor - frequencies), 1.0
