"""The slot of routers: which experts a token is sent to, and with what weight each counts.

Shapes: M tokens (flattened), D model width, E experts, K experts per token, G groups of experts.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.nn.params import constant, normal
from jaxgpt.ops.experts import ByExpert, ByToken
from jaxgpt.registry import slot


class Routing(NamedTuple):
    """What a router decided.

    choice: by token, or by expert where experts choose.
    probabilities_ME: float32, a distribution over experts for each token; what losses and statistics go by.
    logits_ME: float32; None where nothing is learned.
    """

    choice: ByToken | ByExpert
    probabilities_ME: Array
    logits_ME: Array | None


class Statistic(nnx.Variable):
    """A number that training changes without a gradient: not a parameter, neither decayed nor counted."""


@slot("router", package="jaxgpt.nn.router")
@dataclasses.dataclass(frozen=True)
class RouterConfig:
    """How tokens find their experts.

    per_token: K, experts of each token (on average, where experts choose).
    """

    per_token: int = 2

    def __post_init__(self) -> None:
        if self.per_token < 1:
            raise ValueError(f"per_token must be at least 1, got {self.per_token}")

    def check(self, experts: int) -> None:
        """Raise ValueError where the router does not fit so many experts."""
        if self.per_token > experts:
            raise ValueError(f"router.per_token {self.per_token} is more than the {experts} experts there are")

    def make(self, width: int, experts: int, init_std: float, key: Array) -> Router:
        raise TypeError(f"{type(self).__qualname__} must define make()")

    def flops_per_token(self, width: int, experts: int) -> int:
        return 2 * width * experts

    @classmethod
    def examples(cls) -> tuple[RouterConfig, ...]:
        """Configurations that together exercise the router: what the contract test builds."""
        return (cls(),)


class Router(nnx.Module):
    """`router(x, tokens) -> Routing`, in float32 whatever the activations are.

    causal: a token's experts depend on nothing behind it; without that, decoding differs from a full pass.
    """

    causal: bool = True

    def __call__(self, x_MD: Array, tokens_M: Array | None) -> Routing:
        raise AssertionError("every router defines __call__")

    def change(self, load_E: Array) -> dict[str, Array]:
        """What training adds to statistics after a step, by name, given each expert's share of the choices."""
        return {}


class LinearRouter(Router):
    """A router whose logits are a linear map of the token."""

    def __init__(self, width: int, experts: int, bias: bool, init_std: float, key: Array):
        self.weight = normal(key, "weight", (width, experts), ("embed", "expert"), init_std)
        self.bias = constant(0.0, (experts,), ("expert",)) if bias else None

    def logits(self, x_MD: Array) -> Array:
        """float32 [M, E]."""
        logits = jnp.dot(x_MD.astype(jnp.float32), self.weight[...].astype(jnp.float32))
        return logits if self.bias is None else logits + self.bias[...].astype(jnp.float32)[None]


def within_groups(scores_ME: Array, groups: int, kept: int, best: int, outside: float) -> Array:
    """`scores` with `outside` in place of all but the `kept` groups of experts whose `best` highest scores sum to most
    (DeepSeek-V2, arXiv:2405.04434, section 2.2.2; V3, arXiv:2412.19437, section 2.1.2).
    """
    grouped_MGX = scores_ME.reshape(scores_ME.shape[0], groups, -1)
    strength_MG = jax.lax.top_k(grouped_MGX, best)[0].sum(axis=-1)
    _, chosen = jax.lax.top_k(strength_MG, kept)
    inside_MG = (chosen[:, :, None] == jnp.arange(groups)[None, None]).any(axis=1)
    return jnp.where(inside_MG[:, :, None], grouped_MGX, outside).reshape(scores_ME.shape)


def check_groups(experts: int, per_token: int, groups: int, kept: int, best: int) -> None:
    """Raise ValueError unless `experts` fall into equal groups of which `kept` hold enough for a token."""
    if groups < 1 or experts % groups or experts // groups < best:
        raise ValueError(f"router.groups {groups} must divide the {experts} experts into groups of at least {best}")
    if not 1 <= kept <= groups or kept * (experts // groups) < per_token:
        raise ValueError(
            f"router.groups_kept {kept} must be from 1 to {groups} and hold per_token={per_token} experts, "
            f"{experts // groups} to a group"
        )
