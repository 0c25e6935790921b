"""FIRE: a small network of the distance, relative to how far the query looks back.

Shapes: B batch, T query tokens, S key tokens, N heads, U hidden units.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.params import constant, uniform
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.registry import register

EPSILON = 1e-6  # keeps the quotient finite if c or the threshold learn to be 0, as in the authors' code


@register("fire")
@dataclasses.dataclass(frozen=True)
class FireConfig(PositionConfig):
    """Functional interpolation of relative positions (Li et al. 2023, arXiv:2310.04418, equations 3 to 5): the query at
    i adds MLP(psi(i - j) / psi(max(i, t))) to its scores, psi(x) = ln(|c x| + 1), one number per head. c and the
    threshold t, a multiple of the training length, are learned; all layers share everything (FIRE-S).

    The network's output has no bias: the same number on all scores of a head changes no softmax.

    hidden: units of the one hidden layer.
    c: where c starts.
    """

    hidden: int = 32
    c: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden: {self.hidden} must be at least 1")
        if self.c <= 0:
            raise ValueError(f"c: {self.c} must be greater than 0")

    def make(self, dims: PositionDims, key: Array) -> Fire:
        return Fire(self, dims, key=key)


class Fire(PositionEncoding):
    has_bias = True
    shift_invariant = False  # the query's own position is the measure

    def __init__(self, config: FireConfig, dims: PositionDims, *, key: Array):
        self.train_length = dims.train_length
        units, heads = config.hidden, dims.num_heads
        self.c = constant(config.c, (), ())
        self.multiplier = constant(1.0, (), ())  # of the training length: the threshold t
        self.first = uniform(key, "first", (units,), (None,), -1.0, 1.0)
        self.first_bias = uniform(key, "first_bias", (units,), (None,), -1.0, 1.0)
        self.second = uniform(key, "second", (units, heads), (None, "heads"), -(units**-0.5), units**-0.5)

    def bias(self, q: Positions, k: Positions) -> Array:
        """float32 [B or 1, N, T, S]. The hidden layer, U numbers per pair, is computed again for the gradient."""
        return jax.checkpoint(Fire._network)(self, q, k)

    def _network(self, q: Positions, k: Positions) -> Array:
        here = q.position.astype(jnp.float32)[:, :, None]
        distance = jnp.abs(q.position[:, :, None] - k.position[:, None, :]).astype(jnp.float32)
        threshold = jnp.abs(self.multiplier[...] * self.train_length)
        ratio = self._psi(distance) / (self._psi(jnp.maximum(here, threshold)) + EPSILON)
        first, first_bias = (part[...][None, None, None] for part in (self.first, self.first_bias))
        hidden = jax.nn.relu(ratio[..., None] * first + first_bias)
        return jnp.moveaxis(hidden @ self.second[...], -1, 1)

    def _psi(self, x: Array) -> Array:
        return jnp.log1p(jnp.abs(self.c[...] * x))
