"""One residual block: a token mixer and a feed-forward layer, each with its norm."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.mixer.base import LayerDims, MixerConfig, MixerContext
from jaxgpt.nn.norm import Norm, NormConfig
from jaxgpt.nn.params import named
from jaxgpt.ops.layout import constrain

NormPlacement = Literal["pre", "post", "branch", "sandwich"]
Residual = Literal["sequential", "parallel", "parallel_one_norm"]


@dataclasses.dataclass(frozen=True)
class Wiring:
    """How a block's two layers, the mixer and the feed-forward f, are joined to the residual stream x.

    placement: `pre`: x + f(norm(x)) (GPT-2). `post`: norm(x + f(x)) (Vaswani et al. 2017, arXiv:1706.03762). `branch`:
        x + norm(f(x)) (OLMo 2, arXiv:2501.00656, section 3.3). `sandwich`: x + norm(f(norm(x))) (Gemma 2,
        arXiv:2408.00118, section 2; Ding et al. 2021, arXiv:2105.13290).
    residual: `sequential`: the feed-forward reads what the mixer wrote. `parallel`: both read the same x (Wang &
        Komatsuzaki 2021, GPT-J; Black et al. 2022, arXiv:2204.06745, section 2.1); `parallel_one_norm`: by one norm.
    scale: of what a layer writes (Granite).
    dropout: of what a layer writes.
    """

    placement: NormPlacement = "pre"
    residual: Residual = "sequential"
    scale: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.residual != "sequential" and self.placement == "post":
            raise ValueError(f"residual {self.residual!r} has no place for post-norm; choose another norm_placement")
        if self.residual == "parallel_one_norm" and self.placement != "pre":
            raise ValueError("residual 'parallel_one_norm' is for norm_placement 'pre'")


def dropout(x: Array, rate: float, key: Array | None, name: str) -> Array:
    """`x` with a share `rate` of its elements zeroed and the others scaled up; `x` itself without a key."""
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(named(key, name), 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros((), x.dtype))


class Block(nnx.Module):
    """One layer of a model, joined as `Wiring` says."""

    def __init__(
        self,
        mixer: MixerConfig,
        feedforward: FeedForwardConfig,
        norm: NormConfig,
        wiring: Wiring,
        dims: LayerDims,
        *,
        key: Array,
    ):
        self.wiring = wiring
        both = wiring.placement == "sandwich"
        self.mixer_norm = norm.make(dims.width, dims.bias)
        self.mixer = mixer.make(dims, named(key, "mixer"))
        self.mixer_after_norm = norm.make(dims.width, dims.bias) if both else None
        own_norm = wiring.residual != "parallel_one_norm"
        self.feedforward_norm = norm.make(dims.width, dims.bias) if own_norm else None
        self.feedforward = feedforward.make(dims, named(key, "feedforward"))
        self.feedforward_after_norm = norm.make(dims.width, dims.bias) if both else None

    def __call__(self, x_BTD: Array, context: MixerContext, state: Any) -> tuple[Array, Any, dict[str, Array]]:
        feedforward_norm = self.feedforward_norm or self.mixer_norm
        y, state, mixer_aux = self.mixer(self._before(x_BTD, self.mixer_norm), context, state)
        mixed = self._written(y, self.mixer_norm, self.mixer_after_norm, context.key, "mixer_residual")
        if self.wiring.residual == "sequential":
            x_BTD = self._joined(x_BTD, mixed, self.mixer_norm)
        y, feedforward_aux = self.feedforward(self._before(x_BTD, feedforward_norm), context)
        own = self._written(y, feedforward_norm, self.feedforward_after_norm, context.key, "feedforward_residual")
        fed = own if self.wiring.residual == "sequential" else mixed + own
        x_BTD = self._joined(x_BTD, fed, feedforward_norm)
        aux = {"residual_rms": jnp.sqrt(jnp.mean(jnp.square(x_BTD.astype(jnp.float32))))}
        shown = {"mixer": mixed, "feedforward": own, "residual": x_BTD}
        aux |= {name: value for name, value in shown.items() if name in context.capture}
        return x_BTD, state, {**aux, **mixer_aux, **feedforward_aux}

    def _before(self, x_BTD: Array, norm: Norm) -> Array:
        """What a layer reads."""
        return norm(x_BTD) if self.wiring.placement in ("pre", "sandwich") else x_BTD

    def _written(self, y_BTD: Array, norm: Norm, after: Norm | None, key: Array | None, name: str) -> Array:
        """What a layer adds to the stream, given what it computed."""
        after = norm if self.wiring.placement == "branch" else after
        y_BTD = y_BTD if after is None else after(y_BTD)
        y_BTD = dropout(y_BTD, self.wiring.dropout, key, name)
        return y_BTD if self.wiring.scale == 1.0 else y_BTD * jnp.asarray(self.wiring.scale, y_BTD.dtype)

    def _joined(self, x_BTD: Array, written: Array, norm: Norm) -> Array:
        x_BTD = constrain(x_BTD + written, "row", "time", None)
        return norm(x_BTD) if self.wiring.placement == "post" else x_BTD
