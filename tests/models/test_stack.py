"""Layers of several kinds against the same blocks called one after the other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgpt.config import FrozenMapping
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.stack import Order, block_at
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.mixer.base import Mask, MixerContext
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import NopeConfig, PositionEncoding, Positions
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.parallel.flops import matrix_flops

B, T, V = 2, 9, 50
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
ALIKE = DecoderConfig(vocab_size=V, train_length=8, num_layers=7, num_heads=2, width=16, layers="scan", init_std=0.3)
FIRST = dataclasses.replace(ALIKE, first_layers=("b",), pattern=("a", "a", "b"), position=NopeConfig())
UNLIKE = dataclasses.replace(
    FIRST,
    mixer=FrozenMapping({"a": AttentionConfig(), "b": AttentionConfig(qk_norm=True)}),
    feedforward=FrozenMapping({"a": DenseConfig(), "b": GatedConfig()}),
)
LEADING = dataclasses.replace(
    ALIKE,
    first_layers=("dense", "dense", "dense"),
    pattern=("gated",),
    feedforward=FrozenMapping({"dense": DenseConfig(hidden=8), "gated": GatedConfig()}),
    position=FrozenMapping({"dense": RopeConfig(), "gated": AlibiConfig()}),
    window=FrozenMapping({"dense": 3, "gated": None}),
)
CONFIGS = {"alike": ALIKE, "first": FIRST, "unlike": UNLIKE, "leading": LEADING}
each = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@functools.cache
def make(config):
    return jax.jit(config.make)(jax.random.key(0))


@functools.cache
def loss_of(config):
    """A loss, and its gradient."""
    return jax.jit(jax.value_and_grad(lambda model: (model(TOKENS).logits ** 2).mean()))(make(config))


@jax.jit
def run(model, tokens, cache=None):
    return model(tokens, cache=cache)


@each
def test_layers_run_in_their_order(config):
    """Against the blocks taken from the stacks by their numbers."""

    @jax.jit
    def one_by_one(model):
        x, where = model.embedding[...][TOKENS], Positions.of(TOKENS)
        for number, kind in enumerate(config.order.kinds):
            window = config.window[kind] if isinstance(config.window, FrozenMapping) else config.window
            context = MixerContext(where, model.encoding(kind), Mask(window))
            x, _, _ = block_at(model.blocks, config.order, number)(x, context, None)
        return model.final_norm(x) @ model.embedding[...].T

    np.testing.assert_allclose(run(make(config), TOKENS).logits, one_by_one(make(config)), rtol=1e-4, atol=1e-4)


@each
@pytest.mark.parametrize("changes", [{"layers": "unroll"}, {"remat": True}, {"remat": True, "layers": "unroll"}])
def test_how_layers_run_changes_no_number(config, changes):
    (value, gradient), (other_value, other) = (loss_of(one) for one in (config, dataclasses.replace(config, **changes)))
    np.testing.assert_allclose(other_value, value, rtol=1e-5)
    for one, two in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-6)


def test_what_is_computed_again_is_what_the_policy_says():
    """Matrix products of loss and gradient: the more is kept, the fewer."""

    def products(remat):
        config = dataclasses.replace(ALIKE, layers="scan", remat=remat)
        model = jax.eval_shape(config.make, jax.random.key(0))
        gradient = jax.grad(lambda model, tokens: model(tokens).logits.sum())
        return matrix_flops(jax.make_jaxpr(gradient)(model, TOKENS))

    all_kept, dots, weights, nothing = (
        products(remat) for remat in (False, "dots_saveable", "dots_with_no_batch_dims_saveable", True)
    )
    assert all_kept == dots < weights < nothing


@each
def test_decoding_equals_the_full_pass(config):
    model = make(config)
    cache, parts = model.init_cache(B, T), []
    assert len(cache.layers) == config.num_layers
    for begin, end in ((0, 5), *((t, t + 1) for t in range(5, T))):
        out = run(model, TOKENS[:, begin:end], cache)
        cache = out.cache
        parts.append(out.logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), run(model, TOKENS).logits, rtol=1e-4, atol=1e-4)


@each
def test_every_layer_has_parameters_of_its_own(config):
    blocks = [block_at(make(config).blocks, config.order, number) for number in range(config.num_layers)]
    queries = np.stack([block.mixer.query[...] for block in blocks])
    assert len(np.unique(queries[:, 0, 0, 0])) == config.num_layers
    assert [hasattr(block.feedforward, "gate") for block in blocks] == [
        isinstance(config.feedforward, FrozenMapping) and isinstance(config.feedforward[kind], GatedConfig)
        for kind in config.order.kinds
    ]


def test_a_stack_of_a_kind_draws_what_the_common_stack_draws():
    alike, unlike = make(FIRST), make(UNLIKE)
    for number in range(7):
        one, other = block_at(alike.blocks, FIRST.order, number), block_at(unlike.blocks, UNLIKE.order, number)
        np.testing.assert_array_equal(one.mixer.query[...], other.mixer.query[...])


def test_paths_name_the_kind_only_where_layers_differ():
    def paths(config):
        model = jax.eval_shape(config.make, jax.random.key(0))
        return {"/".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}

    assert paths(FIRST)["blocks/feedforward/up"] == (7, 16, 64)
    assert paths(UNLIKE)["blocks/a/feedforward/up"] == (4, 16, 64)
    assert paths(UNLIKE)["blocks/b/mixer/query_norm/scale"] == (3, 8)


def test_statistics_are_in_the_order_of_the_layers():
    """Those that some layers lack are stacked over the others."""
    aux = run(make(LEADING), TOKENS).aux
    assert aux["residual_rms"].shape == (7,)
    x, where, wanted = make(LEADING).embedding[...][TOKENS], Positions.of(TOKENS), []
    for number, kind in enumerate(LEADING.order.kinds):
        encoding = make(LEADING).encoding(kind)
        x, _, _ = block_at(make(LEADING).blocks, LEADING.order, number)(
            x, MixerContext(where, encoding, Mask(LEADING.window[kind])), None
        )
        wanted.append(float(jnp.sqrt((x**2).mean())))
    np.testing.assert_allclose(aux["residual_rms"], wanted, rtol=1e-4)


def test_order_counts_layers():
    order = Order(("x",), ("a", "b"), 5, one_stack=False)
    assert (order.repeats, order.kinds) == (2, ("x", "a", "b", "a", "b"))
    assert order.layers_of("b") == [2, 4]
    assert dataclasses.replace(order, one_stack=True).layers_of("b") == [0, 1, 2, 3, 4]
    assert isinstance(make(FIRST).encoding("b"), PositionEncoding)
