"""A mixture of experts: many feed-forward layers, of which each token uses a few.

Shapes: B batch, T tokens, M = B * T, D model width, E experts, K experts per token.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.mixer.base import LayerDims, MixerContext
from jaxgpt.nn.params import named, normal
from jaxgpt.nn.router.base import RouterConfig, Routing
from jaxgpt.nn.router.expert_choice import ExpertChoiceConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig
from jaxgpt.ops.experts import ByExpert, Implementation, Multiply, by_expert, dropless, with_capacity
from jaxgpt.ops.linear import linear
from jaxgpt.registry import register


@register("moe")
@dataclasses.dataclass(frozen=True)
class MixtureConfig(FeedForwardConfig):
    """Sparse mixture of experts (Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, arXiv:2101.03961).

    experts: how many there are. Many narrow ones are fine-grained experts (DeepSeekMoE, arXiv:2401.06066).
    expert: what each of them is, `dense` or `gated`; its `hidden` is one expert's.
    router: which of them a token uses.
    shared: a layer that every token uses beside them (DeepSeekMoE); None: there is none.
    shared_gate: the shared layer's result is multiplied by sigmoid(x w) (Qwen 1.5).
    capacity: in training an expert takes at most `capacity` times the mean number of tokens, and drops those that come
        later (GShard, arXiv:2006.16668); evaluation and decoding never drop. None: training does not either.
    balance_loss: factor of E sum_e f_e P_e, f the share of choices and P the mean probability of expert e (Fedus et al.
        2021, equation 4); added to the training loss for each layer.
    z_loss: factor of the mean squared logsumexp of the router's logits (Zoph et al. 2022, arXiv:2202.08906, eq. 5).
    implementation: of `ops.experts`, where nothing is dropped; None: chosen by sizes.
    """

    experts: int = 8
    expert: FeedForwardConfig = GatedConfig()
    router: RouterConfig = SoftmaxRouterConfig()
    shared: FeedForwardConfig | None = None
    shared_gate: bool = False
    capacity: float | None = None
    balance_loss: float = 0.01
    z_loss: float = 0.0
    implementation: Implementation | None = None

    def __post_init__(self) -> None:
        for name in ("expert", "shared"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), (DenseConfig, GatedConfig)):
                raise ValueError(f"{name}: a mixture is of dense or gated layers")
        if self.shared_gate and self.shared is None:
            raise ValueError("shared_gate: there is no shared layer; give shared, or leave it out")
        if self.experts < 1:
            raise ValueError(f"experts must be at least 1, got {self.experts}")
        for name, least in (("capacity", 1e-9), ("balance_loss", 0), ("z_loss", 0)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is too small")
        if self.capacity is not None and isinstance(self.router, ExpertChoiceConfig):
            raise ValueError("capacity: where experts choose, all have the same number of tokens anyway; leave it out")
        self.router.check(self.experts)

    def make(self, dims: LayerDims, key: Array) -> Mixture:
        return Mixture(self, dims, key)

    def flops_per_token(self, width: int) -> int:
        """Of the experts that a token uses: the others cost memory, not products."""
        used = self.router.per_token * self.expert.flops_per_token(width)
        shared = 0 if self.shared is None else self.shared.flops_per_token(width)
        return self.router.flops_per_token(width, self.experts) + used + shared + 2 * width * self.shared_gate

    def hidden_of(self, width: int) -> int:
        return self.expert.hidden_of(width)

    def with_hidden(self, hidden: int) -> Self:
        return dataclasses.replace(self, expert=self.expert.with_hidden(hidden))


class Mixture(nnx.Module):
    """See `MixtureConfig`. Parameters: `router/...`, `experts/...` [E, ...], `shared/...`, `shared_gate`."""

    def __init__(self, config: MixtureConfig, dims: LayerDims, key: Array):
        self.config = config
        self.router = config.router.make(dims.width, config.experts, dims.init_std, named(key, "router"))
        keys = jax.random.split(named(key, "experts"), config.experts)
        experts = jax.vmap(lambda one: config.expert.make(dims, one))(keys)
        self.experts = jax.tree.map(_of_experts, experts, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
        self.shared = None if config.shared is None else config.shared.make(dims, named(key, "shared"))
        gate = normal(key, "shared_gate", (dims.width, 1), ("embed", None), dims.init_std)
        self.shared_gate = gate if config.shared_gate else None

    def __call__(self, x_BTD: Array, context: MixerContext | None = None) -> tuple[Array, dict[str, Array]]:
        """y and statistics: `router_load` [E], the share of choices that fell on each expert, `router_entropy` in nats,
        `router_dropped`, the share of choices dropped; losses as `loss/...`."""
        x_MD = x_BTD.reshape(-1, x_BTD.shape[-1])
        counts_M = _counts(x_BTD, context)
        routing = self.router(x_MD, _token_numbers(x_BTD, context))
        choice, kept = routing.choice, None
        if isinstance(choice, ByExpert):
            y_MD = by_expert(self._layer, x_MD, choice)
        elif self.config.capacity is not None and context is not None and context.key is not None:
            each = choice.experts_MK.shape[1]
            places = max(1, math.ceil(self.config.capacity * len(x_MD) * each / self.config.experts))
            claimed, kept = with_capacity(choice, self.config.experts, places, counts_M)
            y_MD = by_expert(self._layer, x_MD, claimed)
        else:
            y_MD = dropless(self._layer, x_MD, choice, self.config.experts, self.config.implementation)
        if self.shared is not None:
            shared, _ = self.shared(x_MD)
            if self.shared_gate is not None:
                shared = shared * jax.nn.sigmoid(linear(x_MD, self.shared_gate[...]))
            y_MD = y_MD + shared
        aux = self._statistics(routing, counts_M, kept)
        if context is not None and "router" in context.capture:
            aux["router"] = routing.probabilities_ME.reshape(*x_BTD.shape[:2], -1)
        return y_MD.reshape(x_BTD.shape), aux

    def _layer(self, multiply: Multiply, x: Array) -> Array:
        return self.experts.through(multiply, x)

    def _statistics(self, routing: Routing, counts_M: Array, kept_MK: Array | None) -> dict[str, Array]:
        config, count = self.config, jnp.maximum(counts_M.sum(), 1)
        load_E = self._load(routing, counts_M)
        probabilities_ME = jnp.where(counts_M[:, None], routing.probabilities_ME, 0.0)
        entropy_M = -(probabilities_ME * jnp.log(jnp.maximum(probabilities_ME, 1e-30))).sum(axis=-1)
        aux = {"router_load": load_E, "router_entropy": entropy_M.sum() / count}
        if kept_MK is not None:
            aux["router_dropped"] = 1 - kept_MK.sum() / (count * kept_MK.shape[1])
        if routing.logits_ME is not None and config.balance_loss:
            mean_E = probabilities_ME.sum(axis=0) / count
            aux["loss/balance"] = config.balance_loss * config.experts * (load_E * mean_E).sum()
        if routing.logits_ME is not None and config.z_loss:
            z_M = jnp.square(jax.nn.logsumexp(routing.logits_ME, axis=-1))
            aux["loss/z"] = config.z_loss * jnp.where(counts_M, z_M, 0.0).sum() / count
        return aux

    def _load(self, routing: Routing, counts_M: Array) -> Array:
        """float32 [E], the sum is 1."""
        if isinstance(routing.choice, ByExpert):
            return jnp.full((self.config.experts,), 1 / self.config.experts)
        hits_E = (
            (routing.choice.hits(self.config.experts) & counts_M[:, None, None]).sum(axis=(0, 1)).astype(jnp.float32)
        )
        return hits_E / jnp.maximum(hits_E.sum(), 1.0)


def _of_experts(variable: nnx.Variable) -> nnx.Variable:
    """A stacked variable whose first dimension runs over experts, which its axes say."""
    metadata = variable.get_metadata()
    return type(variable)(variable[...], **{**metadata, "axes": ("expert", *metadata["axes"])})


def _counts(x_BTD: Array, context: MixerContext | None) -> Array:
    """bool [M]: tokens that are no padding."""
    batch, length = x_BTD.shape[:2]
    if context is None:
        return jnp.ones((batch * length,), bool)
    return jnp.broadcast_to(context.positions.segment > 0, (batch, length)).reshape(-1)


def _token_numbers(x_BTD: Array, context: MixerContext | None) -> Array | None:
    return None if context is None or context.tokens is None else context.tokens.reshape(-1)
