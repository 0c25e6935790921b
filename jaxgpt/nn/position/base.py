"""The one interface between positions and models, and the encoding that changes nothing (NoPE).

Shapes: B batch, T query tokens, S key tokens, D model width, N heads, K key-value heads, H head width. Positions may
have a leading dimension of 1 where one row serves the whole batch; whatever is computed from them broadcasts.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.errors import ContextTooLong
from jaxgpt.registry import register, slot


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Positions:
    """Where tokens are. Masks, encodings and caches see nothing else."""

    position: Array  # [B or 1, T] what an encoding sees: restarts with each document, may be randomised
    index: Array  # [B or 1, T] order in the row: causality and windows
    segment: Array  # [B or 1, T] document within the row, 0 for padding

    @classmethod
    def of(cls, tokens_BT: Array, start: int | Array = 0) -> Positions:
        """One document per row, counted from `start`: arrays [1, T]; tables and biases are made once for the batch."""
        index = start + jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None]
        return cls(position=index, index=index, segment=jnp.ones_like(index))

    @classmethod
    def packed(cls, segment_BT: Array) -> Positions:
        """Several documents per row, given by their segment numbers (0 is padding); positions restart with each."""
        index = jnp.broadcast_to(jnp.arange(segment_BT.shape[1], dtype=jnp.int32)[None], segment_BT.shape)
        before = jnp.pad(segment_BT, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
        start = jax.lax.cummax(jnp.where(segment_BT != before, index, 0), axis=1)
        return cls(position=index - start, index=index, segment=segment_BT)

    @classmethod
    def empty(cls, batch: int, length: int) -> Positions:
        """Nothing there yet: the positions of an empty cache."""
        zeros = jnp.zeros((batch, length), jnp.int32)
        return cls(zeros, zeros, zeros)

    def lengths(self) -> Array:
        """[B or 1, T] for each token one more than the last position of its document among these tokens.

        In a full pass that is the document's length. In a cached step the newest tokens are among the queries as well
        as among the cached keys, so both sides find the same number. Documents need not lie together (ring buffers).
        """

        def row(segment: Array, position: Array) -> Array:
            segments, order = jax.lax.sort((segment, position), num_keys=2)
            return order[jnp.searchsorted(segments, segment, side="right") - 1] + 1

        return jax.vmap(row)(self.segment, self.position)


@dataclasses.dataclass(frozen=True)
class PositionDims:
    """What an encoding may know of the model it serves."""

    width: int  # model width D
    head_dim: int  # width of what is rotated: latent attention passes its rope width
    num_heads: int
    train_length: int  # tokens a training sequence holds
    causal: bool = True
    embedding_std: float = 0.02  # of the token embeddings that encodings are added to, before training


@slot("position", package="jaxgpt.nn.position")
@dataclasses.dataclass(frozen=True)
class PositionConfig:
    """How a model knows where its tokens are."""

    def make(self, dims: PositionDims, key: Array) -> PositionEncoding:
        """Build the module. Raises ConfigError where the config does not fit `dims`."""
        raise TypeError(f"{type(self).__qualname__} must define make()")

    def check(self, dims: PositionDims) -> None:
        """Raise ConfigError where the config does not fit `dims`; models ask when they are configured."""

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        """Configurations that together exercise the encoding: what the contract test builds. The default is enough for
        most; override it where fields have no default or choose between forms."""
        return (cls(),)


class PositionEncoding(nnx.Module):
    """NoPE: changes nothing. Other encodings override what they need; attention knows none of them by name.

    The class attributes say what holds for an encoding; the contract test holds it to them, and attention reads
    `has_bias` and `rotates_by_length`.
    """

    has_bias: bool = False  # bias() returns something
    rotates_by_length: bool = False  # keys depend on the whole length (dynamic NTK): cache them unrotated
    shift_invariant: bool = True  # moving all positions by the same number changes no score
    max_length: int | None = None  # positions from here on have no value (learned); None: any position has one
    way_out: str = "shorten the sequence or choose an encoding without a limit, such as rope or alibi"

    def check_range(self, length: int) -> None:
        """Raise ContextTooLong if a sequence of `length` tokens has positions without a value.

        Compiled code cannot raise, and JAX's gather would clamp silently: whoever knows a length before compilation
        (the static T of a full pass, the capacity of a cache) asks here.
        """
        if self.max_length is not None and length > self.max_length:
            raise ContextTooLong(
                f"position: {type(self).__name__.lower()} has values for {self.max_length} positions, "
                f"and {length} are needed; {self.way_out}"
            )

    def assign(self, positions: Positions, length: int, key: Array | None) -> Positions:
        """Positions as the encoding sees them (randomised positions change them here).

        length: tokens that the whole row holds, or may hold: the width of a full pass, the capacity of a cache.
        key: randomness of training; None in evaluation.
        """
        return positions

    def embed(self, x_BTD: Array, positions: Positions) -> Array:
        """Token embeddings with what depends on their position."""
        return x_BTD

    def queries(self, q_BTNH: Array, positions: Positions) -> Array:
        return q_BTNH

    def keys(self, k_BSKH: Array, positions: Positions) -> Array:
        return k_BSKH

    def bias(self, q: Positions, k: Positions) -> Array:
        """float32 [B or 1, N, T, S], added to scores after 1/sqrt(H). Called on blocks, and only when `has_bias`."""
        raise AssertionError("bias() is called only when has_bias")


@register("nope")
@dataclasses.dataclass(frozen=True)
class NopeConfig(PositionConfig):
    """No positional encoding: only the causal mask tells order (Haviv et al. 2022, arXiv:2203.16634).

    In a pattern such as [rope, rope, rope, nope] (Yang et al. 2025, arXiv:2501.18795) the layers without positions may
    sharpen their scores as the context grows, as those of Llama 4: the query at i, counted from 0 in its document, is
    multiplied by 1 + query_temperature * ln(floor((i + 1) / temperature_floor) + 1).

    query_temperature: 0 leaves queries alone; Llama 4 has 0.1.
    temperature_floor: tokens from which on it acts.
    """

    query_temperature: float = 0.0
    temperature_floor: int = 8192

    def __post_init__(self) -> None:
        if self.query_temperature < 0:
            raise ValueError(f"query_temperature: {self.query_temperature} must be at least 0")
        if self.temperature_floor < 1:
            raise ValueError(f"temperature_floor: {self.temperature_floor} must be at least 1")

    def make(self, dims: PositionDims, key: Array) -> PositionEncoding:
        return PositionEncoding() if self.query_temperature == 0 else TemperedNope(self)

    @classmethod
    def examples(cls) -> tuple[PositionConfig, ...]:
        return cls(), cls(query_temperature=0.5, temperature_floor=4)


class TemperedNope(PositionEncoding):
    shift_invariant = False  # the temperature depends on the query's own position

    def __init__(self, config: NopeConfig):
        self.config = config

    def queries(self, q_BTNH: Array, positions: Positions) -> Array:
        steps = (positions.position + 1) // self.config.temperature_floor
        factors = 1 + self.config.query_temperature * jnp.log1p(steps.astype(jnp.float32))
        return (q_BTNH.astype(jnp.float32) * factors[:, :, None, None]).astype(q_BTNH.dtype)
