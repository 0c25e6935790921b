"""KERPLE: learned kernels of the distance, subtracted from the scores.

Shapes: B batch, T query tokens, S key tokens, N heads.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.params import uniform
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.registry import register

FLOOR = 1e-2  # of p and a, as in the authors' code
MAX_POWER = 2.0  # beyond it the kernel is no longer conditionally positive definite


@register("kerple")
@dataclasses.dataclass(frozen=True)
class KerpleConfig(PositionConfig):
    """Scores fall with a learned kernel of the distance n = |i - j| (Chi et al. 2022, arXiv:2205.09921, equations 6
    and 7). Each head has its p and a, which all layers share.

    form: `log` adds -p ln(1 + a n), `power` adds -a n^p with p at most 2.
    """

    form: Literal["log", "power"] = "log"

    def make(self, dims: PositionDims, key: Array) -> Kerple:
        return Kerple(self, dims.num_heads, key=key)

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return cls(), cls(form="power")


class Kerple(PositionEncoding):
    has_bias = True

    def __init__(self, config: KerpleConfig, num_heads: int, *, key: Array):
        self.config = config
        self.p = uniform(key, "p", (num_heads,), ("heads",), 0.0, 2.0)
        self.a = uniform(key, "a", (num_heads,), ("heads",), 0.0, 1.0)

    def bias(self, q: Positions, k: Positions) -> Array:
        """float32 [B or 1, N, T, S]."""
        distance = jnp.abs(q.position[:, :, None] - k.position[:, None, :]).astype(jnp.float32)[:, None]
        power = self.config.form == "power"
        p = _within(self.p[...], MAX_POWER if power else None)[None, :, None, None]
        a = _within(self.a[...], None)[None, :, None, None]
        if not power:
            return -p * jnp.log1p(a * distance)
        # The derivative of n^p by p is n^p ln(n): NaN at n = 0, also where `where` throws the value away.
        apart = jnp.where(distance > 0, distance, 1.0)
        return -a * jnp.where(distance > 0, apart**p, 0.0)


def _within(parameter: Array, highest: float | None) -> Array:
    """`parameter` held between FLOOR and `highest`. The gradient is that of the parameter itself (straight-through), so
    one that fell outside can come back."""
    return parameter + jax.lax.stop_gradient(jnp.clip(parameter, FLOOR, highest) - parameter)
