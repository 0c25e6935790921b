"""The decoder-only language model (GPT): embedding, blocks, head.

Layers come in repeating groups: `pattern: [local, local, global]` names the kind of each layer of a group, and
`position`, `window`, `mixer` and `feedforward` may be mappings from these kinds. Parameters of like layers are stacked,
[layers, ...]: all of them as `blocks/...`, or those of each kind as `blocks/<kind>/...` where mixers or feed-forward
layers differ.

Shapes: B batch, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.config import FrozenMapping, added_later, encode
from jaxgpt.errors import ConfigError, nearest
from jaxgpt.models.base import Cache, Model, ModelConfig, Output
from jaxgpt.models.mup import Growth, base_of, frozen, growth_of, scaled
from jaxgpt.models.stack import Order, Remat, in_groups, make_blocks, of_kind, one_by_one, rebalanced, stack_of
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.block import Block, NormPlacement, Residual, Wiring, dropout
from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.mixer.base import CAPTURES, LayerDims, Mask, MixerConfig, MixerContext
from jaxgpt.nn.norm import LayerNormConfig, NormConfig
from jaxgpt.nn.params import constant, flatten, named, normal, unflatten
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.ops.cross_entropy import Head
from jaxgpt.ops.layout import constrain, platform
from jaxgpt.registry import kind_of, register


@register("decoder")
@dataclasses.dataclass(frozen=True)
class DecoderConfig(ModelConfig):
    """Decoder-only Transformer (Radford et al. 2019, GPT-2); by configuration also the block of Vaswani et al. 2017
    (arXiv:1706.03762) and of LLaMA (Touvron et al. 2023, arXiv:2302.13971).

    With `mup_base` in the maximal update parametrisation, muP (Yang et al. 2022, arXiv:2203.03466), so that a learning
    rate found at one width fits others: `--set model.width=512 model.mup_base.width=128`. It holds what of this very
    configuration is different in the base model; `jaxgpt/models/mup.py` has the rules.
    """

    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int | None = None  # None: as many as heads
    width: int = 128
    head_dim: int | None = None  # None: width / num_heads
    first_layers: tuple[str, ...] = added_later(())  # the kinds of layers before the pattern begins
    pattern: tuple[str, ...] = ("global",)  # the kind of each layer of a repeating group
    position: PositionConfig | Mapping[str, PositionConfig] = RopeConfig()
    window: int | Mapping[str, int | None] | None = None  # tokens a query sees, its own included
    mixer: MixerConfig | Mapping[str, MixerConfig] = AttentionConfig()
    feedforward: FeedForwardConfig | Mapping[str, FeedForwardConfig] = DenseConfig()
    norm: NormConfig = LayerNormConfig()
    norm_placement: NormPlacement = "pre"
    residual: Residual = added_later("sequential")
    residual_scale: float = added_later(1.0)  # of what each layer writes to the residual stream
    bias: bool = False
    tie_embeddings: bool = True  # the head is the transposed embedding
    embedding_scale: Literal["one", "sqrt_width"] | float = "one"  # sqrt_width: Vaswani et al. 2017, section 3.4
    embedding_norm: bool = added_later(False)  # BLOOM (arXiv:2211.05100, section 3.2.2)
    head_bias: bool = added_later(False)
    logit_scale: float = added_later(1.0)
    logit_soft_cap: float | None = added_later(None)  # c in c tanh(logit / c) (Gemma 2, arXiv:2408.00118)
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    init_std: float = 0.02
    scale_residual_init: bool = True  # GPT-2: what writes to the residual stream starts 1/sqrt(2 layers) smaller
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    layers: Literal["scan", "unroll"] | None = None  # None: unrolled on CPU, scanned on accelerators
    remat: Remat = False  # which activations are computed again in the backward pass; true: all but each layer's input
    mup_base: Mapping[str, Any] | None = added_later(None)  # what is different in muP's base model; None: no muP

    def __post_init__(self):
        for name in ("num_layers", "num_heads", "width", "vocab_size", "train_length", "num_kv_heads", "head_dim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.head_dim is None and self.width % self.num_heads:
            raise ValueError(
                f"num_heads {self.num_heads} does not divide width {self.width}; choose a divisor or give head_dim"
            )
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise ValueError(f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}")
        if self.logit_soft_cap is not None and self.logit_soft_cap <= 0:
            raise ValueError(f"logit_soft_cap must be positive, got {self.logit_soft_cap}")
        rest = self.num_layers - len(self.first_layers)
        if not self.pattern or rest < 1 or rest % len(self.pattern):
            after = f" less the {len(self.first_layers)} of first_layers" if self.first_layers else ""
            raise ValueError(
                f"pattern of {len(self.pattern)} layers does not divide num_layers {self.num_layers}{after}"
            )
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("position", "window", "mixer", "feedforward"):
            value = getattr(self, name)
            if isinstance(value, Mapping) and set(value) != set(self.kinds):
                raise ValueError(f"{name} names the layer kinds {sorted(value)}, but there are {sorted(self.kinds)}")
        assert self.wiring  # checks itself
        for kind in self.kinds:
            window = of_kind(self.window, kind)
            if window is not None and window < 1:  # a query that sees nothing would attend to all keys alike
                raise ValueError(f"window must be at least 1, got {window}")
            of_kind(self.mixer, kind).check(self.layer_dims)
            of_kind(self.position, kind).check(self.position_dims(kind))  # before anything runs
        object.__setattr__(self, "mup_base", frozen(self.mup_base))
        for kind in self.kinds:
            mixer, dims, base = of_kind(self.mixer, kind), self.layer_dims, self.base.layer_dims
            if not mixer.grows_by_head and mixer.position_width(dims) != mixer.position_width(base):
                raise ValueError(
                    f"mup_base: no rule is known for heads of {kind_of(mixer)} wider than the base model's; let "
                    "num_heads grow with the width instead"
                )
        widths = {self.position_dims(kind).head_dim for kind in self.kinds}
        if len(widths) > 1 and not isinstance(self.position, Mapping):
            raise ValueError(f"position: mixers of widths {sorted(widths)} cannot share one; give one per layer kind")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The layer kinds, each once."""
        return tuple(dict.fromkeys(self.first_layers + self.pattern))

    @property
    def wiring(self) -> Wiring:
        """How layers are joined to the residual stream."""
        return Wiring(self.norm_placement, self.residual, self.residual_scale, self.residual_dropout)

    @functools.cached_property
    def base(self) -> Self:
        """The model that muP goes by; this one without muP."""
        return self if self.mup_base is None else base_of(self, self.mup_base)

    def growth(self) -> Mapping[str, Growth]:
        if self.mup_base is None:
            return {}

        def shapes(config: DecoderConfig) -> Decoder:
            return jax.eval_shape(lambda: Decoder(config, key=jax.random.key(0)))

        return growth_of(shapes(self), shapes(self.base))

    @property
    def embedding_factor(self) -> float:
        """What token embeddings are multiplied by."""
        if self.embedding_scale == "sqrt_width":
            return math.sqrt(self.base.width)
        return 1.0 if self.embedding_scale == "one" else self.embedding_scale

    @property
    def order(self) -> Order:
        """Which layer is of which kind, and whether their parameters stand in one stack."""
        alike = not isinstance(self.mixer, Mapping) and not isinstance(self.feedforward, Mapping)
        return Order(self.first_layers, self.pattern, self.num_layers, one_stack=alike)

    @property
    def layer_dims(self) -> LayerDims:
        residual = self.init_std / math.sqrt(2 * self.num_layers) if self.scale_residual_init else self.init_std
        return LayerDims(
            width=self.width,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads or self.num_heads,
            head_dim=self.head_dim or self.width // self.num_heads,
            bias=self.bias,
            dropout=self.attention_dropout,
            init_std=self.init_std,
            residual_std=residual,
            train_length=self.train_length or 1024,
            base_head_dim=None if self.mup_base is None else self.base.layer_dims.head_dim,
        )

    def position_dims(self, kind: str) -> PositionDims:
        """What the positional encoding of a layer kind may know of the model."""
        dims = self.layer_dims
        return PositionDims(
            self.width,
            of_kind(self.mixer, kind).position_width(dims),
            dims.num_heads,
            dims.train_length,
            causal=True,
            embedding_std=self.init_std * self.embedding_factor,
        )

    def make(self, key: Array) -> Decoder:
        if self.vocab_size is None:
            raise ConfigError("model.vocab_size: not known; give it, or use a tokenizer whose size is known")
        if self.train_length is None:
            raise ConfigError("model.train_length: not known; give it or data.sequence_length")
        return scaled(Decoder(self, key=key), self.growth())

    def flops_per_token(self, sequence_length: int) -> int:
        """Multiply-adds times two of every matrix product, three times for forward and backward. Attention counts all
        pairs of a sequence, hidden ones too, as Chowdhery et al. 2022 (arXiv:2204.02311, appendix B).
        """
        assert self.vocab_size is not None
        total = 2 * self.width * self.vocab_size
        for kind in self.order.kinds:
            total += of_kind(self.mixer, kind).flops_per_token(self.layer_dims, sequence_length)
            total += of_kind(self.feedforward, kind).flops_per_token(self.width)
        return 3 * total

    def with_hidden(self, hidden: int) -> Self:
        if isinstance(self.feedforward, Mapping):
            feedforward = FrozenMapping({kind: one.with_hidden(hidden) for kind, one in self.feedforward.items()})
        else:
            feedforward = self.feedforward.with_hidden(hidden)
        changes: dict[str, Any] = {"feedforward": feedforward}
        if self.mup_base is not None:
            base = self.base.with_hidden(max(1, round(hidden * self.base.width / self.width)))
            changes["mup_base"] = {**self.mup_base, "feedforward": encode(base.feedforward)}
        return dataclasses.replace(self, **changes)


class Decoder(Model):
    """See `DecoderConfig`. Parameters: `embedding`, `position/...`, `blocks/...`, `final_norm/...`, `head_matrix`."""

    def __init__(self, config: DecoderConfig, *, key: Array):
        self.config = config
        width, vocab_size, dims = config.width, config.vocab_size, config.layer_dims
        assert vocab_size is not None
        self.embedding = normal(key, "embedding", (vocab_size, width), ("vocab", "embed"), config.init_std)
        if isinstance(config.position, Mapping):
            encodings = {
                kind: config.position[kind].make(config.position_dims(kind), named(named(key, "position"), kind))
                for kind in config.kinds
            }
            self.position = nnx.Dict(encodings)
        else:
            self.position = config.position.make(config.position_dims(config.kinds[0]), named(key, "position"))

        def block(kind: str, key: Array) -> Block:
            parts = of_kind(config.mixer, kind), of_kind(config.feedforward, kind)
            return Block(*parts, config.norm, config.wiring, dims, key=key)

        self.blocks = make_blocks(config.order, block, jax.random.split(named(key, "blocks"), config.num_layers))
        self.embedding_norm = config.norm.make(width, config.bias) if config.embedding_norm else None
        # Post-norm blocks end in a norm already.
        self.final_norm = config.norm.make(width, config.bias) if config.norm_placement != "post" else None
        untied = not config.tie_embeddings  # one assignment: what is None once cannot become a parameter
        head_axes = ("embed", "vocab")
        self.head_matrix = normal(key, "head", (width, vocab_size), head_axes, config.init_std) if untied else None
        self.head_bias = constant(0.0, (vocab_size,), ("vocab",)) if config.head_bias else None

    def encoding(self, kind: str) -> PositionEncoding:
        """The positional encoding of a layer kind."""
        return self.position[kind] if isinstance(self.position, nnx.Dict) else self.position

    @property
    def max_length(self) -> int | None:  # type: ignore[override]
        limits = [self.encoding(kind).max_length for kind in self.config.kinds]
        return min((limit for limit in limits if limit is not None), default=None)

    def init_cache(self, batch: int, length: int, rings: bool = True) -> Cache:
        """An empty cache for `length` tokens of `batch` sequences. Without `rings` layers with a window keep all tokens
        too, so that the last ones can be taken back."""
        order, dtype = self.config.order, jnp.dtype(self.config.compute_dtype)
        states = []
        for kind in order.kinds:
            mixer = stack_of(self.blocks, order, kind).mixer  # an empty state asks for no parameter
            window = of_kind(self.config.window, kind) if rings else None
            states.append(mixer.init_state(batch, length, dtype, window))
        return Cache(tuple(states), jnp.int32(0), length)

    def __call__(
        self,
        tokens_BT: Array,
        positions: Positions | None = None,
        cache: Cache | None = None,
        key: Array | None = None,
        logits_from: int | None = None,
        capture: tuple[str, ...] = (),
    ) -> Output:
        """Logits of the next token at every position, or from position `logits_from` on.

        tokens_BT: int [B, T]. positions: where the tokens are; one document per row without it. cache: of `init_cache`
        or an earlier call. key: randomness of dropout; without it there is none. capture: what layers give out in `aux`
        beside their statistics, names of `nn.mixer.base.CAPTURES`. Raises ContextTooLong where the positional encoding
        has no values for T tokens, ConfigError for something unknown to capture.
        """
        x_BTD, cache, aux = self.hidden(tokens_BT, positions, cache, key, capture)
        if logits_from is not None:
            x_BTD = x_BTD[:, logits_from:]
        flat = x_BTD.reshape(-1, x_BTD.shape[-1])
        return Output(self.head().logits(flat).reshape(*x_BTD.shape[:2], -1), cache, aux)

    def after_step(self, aux: dict[str, Array]) -> Self:
        if "router_load" not in aux:
            return self
        return unflatten(self, rebalanced(flatten(self), self.blocks, self.config.order, aux["router_load"]))

    def head(self) -> Head:
        config = self.config
        matrix_DV = self.embedding[...].T if self.head_matrix is None else self.head_matrix[...]
        if config.base.width != config.width:
            matrix_DV = matrix_DV * (config.base.width / config.width)
        bias_V = None if self.head_bias is None else self.head_bias[...]
        return Head(matrix_DV, bias_V, config.logit_scale, config.logit_soft_cap)

    def hidden(self, tokens_BT, positions=None, cache=None, key=None, capture=()):
        config = self.config
        for name in capture:
            if name not in CAPTURES:
                raise ConfigError(f"capture: there is no {name!r}{nearest(name, CAPTURES)}")
        # Shapes are known before compilation; positions inside a cache are not: its whole length must have values.
        length = tokens_BT.shape[1] if cache is None else cache.length
        for kind in config.kinds:
            self.encoding(kind).check_range(length)
        one_document = positions is None
        if positions is None:
            positions = Positions.of(tokens_BT, 0 if cache is None else cache.at)
        position_key = None if key is None else named(key, "positions")
        where = {kind: self.encoding(kind).assign(positions, length, position_key) for kind in config.kinds}
        x_BTD = constrain(self.embedding[...][tokens_BT].astype(config.compute_dtype), "row", "time", None)
        if config.embedding_factor != 1.0:
            x_BTD = x_BTD * jnp.asarray(config.embedding_factor, x_BTD.dtype)
        for kind in config.kinds if isinstance(self.position, nnx.Dict) else config.kinds[:1]:
            x_BTD = self.encoding(kind).embed(x_BTD, where[kind])
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        x_BTD = dropout(x_BTD, config.embedding_dropout, key, "embedding")
        x_BTD, layers, aux = self._stack(x_BTD, where, positions.position, cache, key, tokens_BT, capture, one_document)
        if cache is not None:
            cache = dataclasses.replace(cache, layers=layers, at=cache.at + tokens_BT.shape[1])
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD), cache, aux

    def _stack(
        self,
        x_BTD: Array,
        where: Mapping[str, Positions],
        place: Array | None,
        cache: Cache | None,
        key: Array | None,
        tokens_BT: Array | None = None,
        capture: tuple[str, ...] = (),
        one_document: bool = False,
    ) -> tuple[Array, Any, dict[str, Array]]:
        """All blocks in order: x, the states of the layers if there is a cache, and statistics stacked by layer."""
        config = self.config
        at = None if cache is None else cache.at

        def call(block: Block, kind: str, number: int | Array, x: Array, state: Any):
            layer_key = None if key is None else jax.random.fold_in(named(key, "layer"), number)
            mask = Mask(of_kind(config.window, kind))
            told = at, layer_key, tokens_BT, place, capture, one_document
            context = MixerContext(where[kind], self.encoding(kind), mask, *told)
            return block(x, context, state)

        if cache is not None:
            return one_by_one(self.blocks, config.order, call, x_BTD, cache.layers)
        unroll = config.layers == "unroll" or (config.layers is None and platform() == "cpu")
        x_BTD, aux = in_groups(self.blocks, config.order, call, x_BTD, unroll=unroll, remat=config.remat)
        return x_BTD, None, aux
