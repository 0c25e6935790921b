"""The decoder against the papers' sizes and against itself in another form.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

import dataclasses
import functools
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

import jaxgpt
from jaxgpt import registry
from jaxgpt.config import FrozenMapping
from jaxgpt.errors import UserError
from jaxgpt.models.base import parameter_count
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.mixer.base import Mask, MixerContext
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.position.absolute import LearnedConfig, SinusoidalConfig
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import NopeConfig, PositionConfig, Positions
from jaxgpt.nn.position.rope_scaling import ScalingConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.position.t5 import T5Config

PRESETS = sorted((Path(jaxgpt.__file__).parent.parent / "configs" / "model").glob("*.yaml"))
B, T, V, TRAIN_LENGTH = 2, 12, 64, 8
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)  # of numpy: cutting it compiles nothing

# Scanned, for that compiles fastest; the unrolled form is compared with it below. Larger than usual weights, so that
# attention is far from uniform and every difference shows.
SMALL = DecoderConfig(
    vocab_size=V,
    train_length=TRAIN_LENGTH,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    width=32,
    layers="scan",
)


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


TWO_KINDS = small(
    pattern=("local", "global"),
    position=FrozenMapping({"local": RopeConfig(), "global": AlibiConfig()}),
    window=FrozenMapping({"local": 3, "global": None}),
)


@functools.cache
def make(config):
    """The model with numbers drawn by numpy, which need no compilation, from the names of its parameters. They are
    large, so that attention is far from uniform and differences show, and gains and biases are off their start."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(leaf.shape, np.float32)
        return jnp.asarray(1 + 0.1 * noise if "scale" in name else 0.3 * noise)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(config.make, jax.random.key(0)))


@functools.cache
def drawn(config, seed=0):
    """The model as training draws it."""
    return jax.jit(config.make)(jax.random.key(seed))


@functools.partial(jax.jit, static_argnames="logits_from")
def run(model, tokens, positions=None, cache=None, key=None, logits_from=None):
    return model(tokens, positions, cache, key, logits_from)


def logits(*arguments, **named):
    """As numpy, for the same reason as the tokens."""
    return np.asarray(run(*arguments, **named).logits)


def close(one, other, **tolerance):
    np.testing.assert_allclose(one, other, **{"rtol": 2e-4, "atol": 2e-4, **tolerance})


# ---------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(("name", "count"), [("gpt2-124m", 124_439_808), ("gpt2-350m", 354_823_168)])
def test_gpt2_has_the_papers_parameters(name, count):
    config = jaxgpt.load_config(next(path for path in PRESETS if path.stem == name)).model
    assert parameter_count(jax.eval_shape(config.make, jax.random.key(0))) == count


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_builds_and_runs_in_the_abstract(path):
    config = jaxgpt.load_config(path, ["data.tokenizer=byte"])
    model = jax.eval_shape(config.model.make, jax.random.key(0))
    assert parameter_count(model) > 100_000
    length, size = config.data.sequence_length, config.model.vocab_size
    out = jax.eval_shape(lambda m, t: m(t), model, jax.ShapeDtypeStruct((2, length), jnp.int32))
    assert (out.logits.shape, out.logits.dtype) == ((2, length, size), jnp.float32)


def test_parameter_paths_are_the_public_format():
    model = jax.eval_shape(small(bias=True, tie_embeddings=False, position=T5Config()).make, jax.random.key(0))
    paths = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    assert paths >= {
        "embedding",
        "head_matrix",
        "position/table",
        "final_norm/scale",
        "blocks/mixer/query",
        "blocks/mixer/output_bias",
        "blocks/mixer_norm/bias",
        "blocks/feedforward/up",
        "blocks/feedforward_norm/scale",
    }


def product_flops(function, *arguments):
    """Multiply-adds times two of all matrix products that a function traces to, the bodies of scans as often as run."""

    def count(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                contracted = equation.params["dimension_numbers"][0][0]
                shape = equation.invars[0].aval.shape
                total += 2 * equation.outvars[0].aval.size * int(np.prod([shape[axis] for axis in contracted]))
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            total += times * sum(count(inner) for inner in jaxprs_in_params(equation.params))
        return total

    return count(jax.make_jaxpr(function)(*arguments).jaxpr)


@pytest.mark.parametrize(
    "config", [SMALL, small(num_kv_heads=None, head_dim=5, position=NopeConfig(), feedforward=GatedConfig(), width=24)]
)
def test_flops_are_three_times_the_products_of_a_forward_pass(config):
    model = jax.eval_shape(config.make, jax.random.key(0))
    assert config.flops_per_token(T) * B * T == 3 * product_flops(lambda m, t: m(t).logits, model, TOKENS)


# ------------------------------------------------------------------------------------------------ the same another way


def encodings():
    """Every kind and every scaling, in its first example; the others are compared in the contract of positions."""
    found = {kind: base.examples()[0] for kind, base in registry.kinds(PositionConfig).items()}
    scalings = {kind: base.examples()[0] for kind, base in registry.kinds(ScalingConfig).items()}
    found |= {f"rope-{kind}": RopeConfig(scaling=config) for kind, config in scalings.items()}
    return [pytest.param(config, id=name) for name, config in found.items()]


@functools.partial(jax.jit, static_argnums=(1, 2))
def empty_cache(model, batch, length):
    return model.init_cache(batch, length)


def decode_steps(model, tokens, capacity, cuts):
    """Logits of every token, computed with a cache in parts that end at `cuts`, and the cache."""
    cache, parts, begin = empty_cache(model, tokens.shape[0], capacity), [], 0
    for end in cuts:
        out = run(model, tokens[:, begin:end], cache=cache)
        parts.append(out.logits)
        cache, begin = out.cache, end
    return np.concatenate(parts, axis=1), cache


@pytest.mark.parametrize("position", encodings())
def test_decoding_with_a_cache_equals_the_full_pass(position):
    """Several tokens at once, then one by one, beyond the training length where the encoding has values there."""
    by_length = isinstance(position, RopeConfig) and position.scaling is not None and position.scaling.by_length
    # Where angles depend on the length, tokens before the newest were decoded when the sequence was shorter, and keys
    # of deeper layers stem from them: equal up to the training length and at the newest token beyond it.
    model = make(small(position=position, num_layers=1, layers="unroll"))
    length = min(T, model.max_length or T)
    steps, cache = decode_steps(model, TOKENS[:, :length], length, [5, *range(6, length + 1)])
    assert int(cache.at) == length
    whole = logits(model, TOKENS[:, :length])
    if by_length:
        close(steps[:, -1], whole[:, -1])
        assert float(np.abs(steps - whole)[:, :-1].max()) > 1e-2
        steps, whole = steps[:, :TRAIN_LENGTH], logits(model, TOKENS[:, :TRAIN_LENGTH])
    close(steps, whole)


@pytest.mark.parametrize(
    "config",
    [
        small(bias=True, norm_placement="post", window=3, mixer=AttentionConfig(qk_norm=True), num_kv_heads=1),
        small(
            pattern=TWO_KINDS.pattern,
            position=TWO_KINDS.position,
            window=TWO_KINDS.window,
            norm=RMSNormConfig(),
            tie_embeddings=False,
        ),
    ],
    ids=["post-norm", "pattern"],
)
def test_decoding_of_other_stacks(config):
    model = make(config)
    steps, _ = decode_steps(model, TOKENS, T + 3, [4, 7, *range(8, T + 1)])
    close(steps, logits(model, TOKENS))


def test_decoding_of_rows_padded_on_the_left():
    """With `Positions` given, padding before a prompt changes nothing; the cache keeps where tokens are."""
    model, pad = make(SMALL), 3
    positions = jax.tree.map(np.asarray, Positions.packed(jnp.array([[0] * pad + [1] * (T - pad), [1] * T])))
    cache, parts = empty_cache(model, B, T), []
    for begin, end in ((0, 6), *((t, t + 1) for t in range(6, T))):
        where = jax.tree.map(lambda a, b=begin, e=end: a[:, b:e], positions)
        out = run(model, TOKENS[:, begin:end], where, cache)
        cache = out.cache
        parts.append(out.logits)
    steps = np.concatenate(parts, axis=1)
    close(steps[:1, pad:], logits(model, TOKENS[:1, pad:]))
    close(steps[1:], logits(model, TOKENS)[1:])


@pytest.mark.parametrize("position", [RopeConfig(), LearnedConfig(), T5Config()], ids=["rope", "learned", "t5"])
def test_packed_documents_equal_separate_ones(position):
    model = make(small(position=position, train_length=T))
    segment = jnp.array([[1] * 4 + [2] * 4 + [0] * 4, [7] * 4 + [8] * 4 + [9] * 4])
    together = logits(model, TOKENS, Positions.packed(segment))
    apart = logits(model, TOKENS.reshape(6, 4)).reshape(B, T, V)
    close(together[0, :8], apart[0, :8])
    close(together[1], apart[1])
    assert np.isfinite(together).all(), "padding too"


@pytest.mark.parametrize("window", [None, 3])
def test_no_token_sees_a_later_one_nor_one_before_its_window(window):
    model = make(small(window=window, num_layers=1))

    @jax.jit
    def reach(embedding, t):
        """Gradient of the logits at t with respect to the embedding of each place."""
        x = embedding[TOKENS[:1]]

        def of_x(x):
            y, _, _ = model._stack(x, {"global": Positions.of(TOKENS[:1])}, None, None, None)
            return (y[0, t] ** 2).sum()

        return jnp.abs(jax.grad(of_x)(x)).sum((0, 2))

    for t in (0, 6, T - 1):
        row = np.asarray(reach(model.embedding[...], t))
        first = 0 if window is None else max(0, t - window + 1)
        assert np.all(row[t + 1 :] == 0)
        assert np.all(row[first : t + 1] > 0)
        assert np.all(row[:first] == 0)


def test_logits_at_a_token_ignore_later_tokens():
    model = make(SMALL)
    close(logits(model, np.where(np.arange(T) < 7, TOKENS, 0))[:, :7], logits(model, TOKENS)[:, :7], atol=1e-6)


@functools.cache
def loss_and_gradient(config):
    def loss(model):
        logits = model(TOKENS).logits
        return jnp.take_along_axis(jax.nn.log_softmax(logits), np.roll(TOKENS, -1, 1)[..., None], -1).mean()

    return jax.jit(jax.value_and_grad(loss))(make(config))


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (SMALL, {"layers": "unroll"}),
        (TWO_KINDS, {"remat": True}),
        (SMALL, {"remat": True, "layers": "unroll"}),
        (SMALL, {"remat": "dots_saveable"}),
        (TWO_KINDS, {"remat": "dots_with_no_batch_dims_saveable"}),
    ],
    ids=["unrolled", "remat of two kinds", "remat unrolled", "products kept", "products with weights kept"],
)
def test_how_layers_run_changes_no_number(config, changes):
    wanted, wanted_gradients = loss_and_gradient(config)
    value, gradients = loss_and_gradient(dataclasses.replace(config, **changes))
    close(value, wanted, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted_gradients), strict=True):
        close(one, other, rtol=1e-3, atol=1e-5)


def test_layers_are_unrolled_on_the_cpu_unless_asked_otherwise():
    """More products in the text of the compiled program, for none is the body of a loop."""

    def loops(layers):
        model = make(small(num_layers=4, layers=layers))
        return jax.jit(lambda m, t: m(t).logits).lower(model, TOKENS).as_text().count("stablehlo.while")

    assert (loops("scan"), loops("unroll"), loops(None)) == (1, 0, 0)


def test_layers_of_a_pattern_are_what_each_kind_says():
    """Four layers of two kinds equal their blocks called one after the other, with their kind's encoding and window."""
    config = dataclasses.replace(TWO_KINDS, num_layers=4)

    @jax.jit
    def one_by_one(model):
        x, where = model.embedding[...][TOKENS], Positions.of(TOKENS)
        for number in range(4):
            block = jax.tree.map(lambda leaf, n=number: leaf[n], model.blocks)
            mask, encoding = (
                (Mask(None), model.position["global"]) if number % 2 else (Mask(3), model.position["local"])
            )
            x, _, _ = block(x, MixerContext(where, encoding, mask), None)
        return model.final_norm(x) @ model.embedding[...].T

    close(logits(make(config), TOKENS), one_by_one(make(config)))


def test_encodings_by_layer_kind_each_change_the_embedding():
    config = small(
        pattern=("a", "b"),
        position=FrozenMapping({"a": SinusoidalConfig(scale=1.0), "b": LearnedConfig(num_positions=99)}),
    )
    model = make(config)
    assert model.max_length == 99
    assert make(small(position=AlibiConfig())).max_length is None
    zero = jax.tree.map(jnp.zeros_like, model)
    assert not logits(zero, TOKENS).any()
    assert float(jnp.abs(logits(model, TOKENS[:, :1])).max()) > 0


# -------------------------------------------------------------------------------------------------------------- options


def test_embeddings_tied_and_untied():
    tied, untied = make(SMALL), make(small(tie_embeddings=False))
    assert parameter_count(untied) - parameter_count(tied) == V * 32
    np.testing.assert_array_equal(tied.head().matrix_DV, tied.embedding[...].T)
    np.testing.assert_array_equal(untied.head().matrix_DV, untied.head_matrix[...])
    np.testing.assert_array_equal(tied.embedding[...], untied.embedding[...])
    x, _, _ = jax.jit(lambda m: m.hidden(TOKENS))(untied)
    close(logits(untied, TOKENS), np.asarray(x) @ np.asarray(untied.head().matrix_DV))


def test_post_norm_ends_in_the_blocks_own_norm():
    post = drawn(small(norm_placement="post"))
    assert post.final_norm is None
    x, _, _ = jax.jit(lambda m: m.hidden(TOKENS))(post)
    close((np.asarray(x) ** 2).mean(-1), 1.0, rtol=1e-2)
    assert make(SMALL).final_norm is not None


def test_embeddings_scaled_by_the_root_of_the_width():
    one, scaled = make(small(norm_placement="post")), make(small(norm_placement="post", embedding_scale="sqrt_width"))
    wanted, _, _ = jax.jit(lambda m: m.hidden(TOKENS))(scaled)
    by_hand = jax.tree.map(lambda leaf: leaf, one)
    by_hand.embedding[...] = by_hand.embedding[...] * np.sqrt(32)
    close(jax.jit(lambda m: m.hidden(TOKENS))(by_hand)[0], wanted)


def test_bfloat16_stays_near_float32():
    model = make(small(compute_dtype="bfloat16"))
    half, full = run(model, TOKENS), run(make(SMALL), TOKENS)
    assert half.logits.dtype == jnp.float32
    error = np.abs(np.asarray(half.logits - full.logits)).mean() / np.asarray(full.logits).std()
    assert 0 < error < 0.03
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model)), "parameters stay float32"
    assert {leaf.dtype for leaf in jax.tree.leaves(model.init_cache(1, 4).layers)} == {
        jnp.dtype("bfloat16"),
        jnp.dtype("int32"),
    }


PLACES = ["embedding_dropout", "attention_dropout", "residual_dropout"]


def test_without_a_key_there_is_no_dropout():
    close(run(make(small(**dict.fromkeys(PLACES, 0.5))), TOKENS).logits, logits(make(SMALL), TOKENS), atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_dropout_is_drawn_from_the_key(place):
    dropping = make(small(**{place: 0.5}))
    one, again, other = (logits(dropping, TOKENS, key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-2
    assert np.abs(one - logits(make(SMALL), TOKENS)).max() > 1e-2


def test_every_layer_drops_other_elements():
    """Two layers that each add dropout(1): were the masks one, no sum would be half of the largest."""
    model = jax.tree.map(jnp.zeros_like, make(small(residual_dropout=0.5, bias=True, norm=RMSNormConfig())))
    for part in (model.blocks.mixer.output_bias, model.final_norm.scale):
        part[...] = jnp.ones_like(part[...])
    x, _, _ = jax.jit(lambda m: m.hidden(TOKENS, key=jax.random.key(0)))(model)
    shares = np.asarray(x) / np.asarray(x).max(-1, keepdims=True)
    assert {float(share) for share in np.unique(shares.round(3))} == {0.0, 0.5, 1.0}


def test_logits_from_a_token_on():
    model = make(SMALL)
    close(logits(model, TOKENS, logits_from=T - 2), logits(model, TOKENS)[:, -2:], atol=1e-5)


def test_statistics_come_by_layer():
    out = run(make(small(num_layers=4, pattern=("a", "b"))), TOKENS)
    assert out.aux["residual_rms"].shape == (4,)
    assert out.cache is None
    assert np.all(np.diff(out.aux["residual_rms"]) > 0), "the residual stream grows"


# ---------------------------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize(
    "changes",
    [
        {"position": LearnedConfig()},
        {"position": T5Config(), "tie_embeddings": False},
        {"feedforward": GatedConfig(), "norm": RMSNormConfig()},
        {"bias": True, "embedding_dropout": 0.1, "compute_dtype": "bfloat16", "layers": "unroll"},
        {"num_layers": 4, "scale_residual_init": False},
        {"pattern": ("local", "global"), "window": FrozenMapping({"local": 3, "global": None})},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_one_seed_draws_the_same_values_for_all_that_variants_share(changes):
    base, variant = drawn(small(scale_residual_init=False)), drawn(small(**{"scale_residual_init": False, **changes}))
    mine, other = (dict(nnx.to_flat_state(nnx.state(model, nnx.Param))) for model in (base, variant))
    shared = [path for path in mine if path in other and mine[path].shape[1:] == other[path].shape[1:]]
    assert ("embedding",) in shared
    assert ("blocks", "mixer", "query") in shared
    for path in shared:
        rows = min(len(mine[path][...]), len(other[path][...]))
        np.testing.assert_array_equal(mine[path][...][:rows], other[path][...][:rows], err_msg=str(path))


def test_another_seed_and_another_layer_draw_other_values():
    query = drawn(SMALL).blocks.mixer.query[...]
    assert not np.allclose(query, drawn(SMALL, seed=1).blocks.mixer.query[...])
    assert not np.allclose(query[0], query[1])


def test_what_writes_to_the_residual_stream_starts_smaller():
    """GPT-2: by the square root of twice the number of layers."""
    model = drawn(small(num_layers=8, width=64))
    assert abs(float(model.blocks.mixer.output[...].std()) / 0.02 * 4 - 1) < 0.05
    assert abs(float(model.blocks.feedforward.down[...].std()) / 0.02 * 4 - 1) < 0.05
    assert abs(float(model.blocks.feedforward.up[...].std()) / 0.02 - 1) < 0.05
    assert abs(float(model.embedding[...].std()) / 0.02 - 1) < 0.05


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_learned_positions_refuse_a_context_they_have_no_vectors_for():
    model = make(small(position=LearnedConfig()))
    assert model.max_length == TRAIN_LENGTH
    with pytest.raises(UserError, match=rf"learned has values for {TRAIN_LENGTH} positions, and {T} are needed"):
        run(model, TOKENS)
    with pytest.raises(UserError, match=r"and 9 are needed"):
        run(model, TOKENS[:, :2], cache=model.init_cache(B, 9))
    assert logits(model, TOKENS[:, :TRAIN_LENGTH]).shape == (B, TRAIN_LENGTH, V)
