"""Experts by the number of the token."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxgpt.nn.router.base import Router, RouterConfig, Routing
from jaxgpt.ops.experts import ByToken
from jaxgpt.registry import register


@register("hash")
@dataclasses.dataclass(frozen=True)
class HashRouterConfig(RouterConfig):
    """A fixed table sends each entry of the vocabulary to K experts of equal weight; nothing is learned (Roller et al.
    2021, arXiv:2106.04426, section 3, random hashing).

    seed: of the table, which all layers share.
    """

    seed: int = 0

    def make(self, width: int, experts: int, init_std: float, key: Array) -> HashRouter:
        return HashRouter(self, experts)

    def flops_per_token(self, width: int, experts: int) -> int:
        return 0


class HashRouter(Router):
    def __init__(self, config: HashRouterConfig, experts: int):
        self.config, self.experts = config, experts

    def __call__(self, x_MD: Array, tokens_M: Array | None) -> Routing:
        if tokens_M is None:
            raise AssertionError("a hash router needs the tokens' numbers")
        first = _mixed(tokens_M, self.config.seed) % self.experts
        # Further experts at steps that differ by token too: K of them, all different.
        step = 1 + _mixed(tokens_M, self.config.seed + 1) % max(self.experts - 1, 1)
        experts_MK = [first]
        for _ in range(self.config.per_token - 1):
            candidate = (experts_MK[-1] + step) % self.experts
            for _ in range(len(experts_MK)):  # a step that divides the number of experts comes back too early
                taken = jnp.stack([candidate == other for other in experts_MK]).any(axis=0)
                candidate = jnp.where(taken, (candidate + 1) % self.experts, candidate)
            experts_MK.append(candidate)
        chosen = jnp.stack(experts_MK, axis=-1).astype(jnp.int32)
        weights = jnp.full(chosen.shape, 1 / self.config.per_token, jnp.float32)
        choice = ByToken(chosen, weights)
        return Routing(choice, (weights[:, :, None] * choice.hits(self.experts)).sum(axis=1), None)


def _mixed(numbers: Array, seed: int) -> Array:
    """uint32: each number well mixed with the seed (the finaliser of MurmurHash3)."""
    h = numbers.astype(jnp.uint32) + jnp.uint32((0x9E3779B9 * (seed + 1)) & 0xFFFFFFFF)
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
