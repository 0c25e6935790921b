"""Looking inside a decoder: what each layer would predict, and which embeddings are near each other.

Attention maps, routers' probabilities and what layers write come from the forward pass itself: `model(tokens,
capture=("attention", "residual"))` has them in `.aux` (names: `nn.mixer.base.CAPTURES`).

Shapes: L layers, B batch, T tokens, D model width, V vocabulary, M tokens asked about.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxgpt.models.decoder import Decoder


def logit_lens(model: Decoder, residual_LBTD: Array) -> Array:
    """float32 [L, B, T, V]: the logits that the head makes of the stream behind each layer, as `capture=("residual",)`
    gives it; those of the last layer are the model's own (nostalgebraist 2020; Belrose et al. 2023, arXiv:2303.08112,
    section 2).
    """

    def of_layer(x_BTD: Array) -> Array:
        x_BTD = x_BTD if model.final_norm is None else model.final_norm(x_BTD)
        return model.head().logits(x_BTD.reshape(-1, x_BTD.shape[-1])).reshape(*x_BTD.shape[:2], -1)

    return jax.lax.map(of_layer, residual_LBTD)


def neighbours(model: Decoder, tokens: Sequence[int], count: int = 10) -> tuple[Array, Array]:
    """The `count` tokens whose embeddings point most nearly the same way as each of `tokens`, without itself: int32
    [M, count], nearest first, and the cosines [M, count]."""
    at = jnp.asarray(tokens, jnp.int32)
    return _nearest(model, _directions(model)[at], at[:, None], count)


def analogy(model: Decoder, one: int, other: int, third: int, count: int = 10) -> tuple[Array, Array]:
    """What is to `third` as `other` is to `one`: the tokens nearest to `other - one + third` in direction, those three
    left out (Mikolov et al. 2013, arXiv:1301.3781, section 4). Shapes [count]."""
    directions, asked = _directions(model), jnp.array([[one, other, third]], jnp.int32)
    place = directions[other] - directions[one] + directions[third]
    found, cosines = _nearest(model, place[None] / jnp.linalg.norm(place), asked, count)
    return found[0], cosines[0]


def _directions(model: Decoder) -> Array:
    """float32 [V, D]: embeddings of length 1."""
    embedding_VD = model.embedding[...].astype(jnp.float32)
    return embedding_VD / jnp.maximum(jnp.linalg.norm(embedding_VD, axis=-1, keepdims=True), 1e-30)


def _nearest(model: Decoder, places_MD: Array, without_MX: Array, count: int) -> tuple[Array, Array]:
    cosines_MV = places_MD @ _directions(model).T
    rows = jnp.arange(len(places_MD))[:, None]
    cosines, found = jax.lax.top_k(cosines_MV.at[rows, without_MX].set(-jnp.inf), count)
    return found.astype(jnp.int32), cosines
