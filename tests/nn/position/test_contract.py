"""What every positional encoding and every scaling must hold to, whichever file it comes from.

Kinds are found by name, so an encoding is tested the day its file appears; `examples()` of its config says which
configurations to build.

Shapes: B batch, T query tokens, S key tokens, D width, N heads, K key-value heads, H head width.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import nnx

from jaxgpt import registry
from jaxgpt.config import decode, encode, write_yaml
from jaxgpt.errors import ConfigError
from jaxgpt.nn.position.base import PositionConfig, PositionDims, PositionEncoding, Positions
from jaxgpt.nn.position.rope_scaling import ScalingConfig
from jaxgpt.nn.position.rotary import RopeConfig

B, K = 2, 2
LENGTH = 24  # tokens: one shape nearly everywhere, because compiling is what takes time
DIMS = PositionDims(width=32, head_dim=16, num_heads=4, train_length=8)

ENCODINGS = registry.kinds(PositionConfig)
SCALINGS = registry.kinds(ScalingConfig)


def _configs() -> list:
    named = [(kind, config) for kind, found in ENCODINGS.items() for config in found.examples()]
    named += [
        (f"rope-{kind}", RopeConfig(scaling=config)) for kind, found in SCALINGS.items() for config in found.examples()
    ]
    return [pytest.param(config, id=f"{name}-{number}") for number, (name, config) in enumerate(named)]


each = pytest.mark.parametrize("config", _configs())


@functools.cache
def make(config: PositionConfig) -> PositionEncoding:
    """The encoding, its parameters moved off their start: a table of zeros would hide what it does."""
    encoding = config.make(DIMS, jax.random.key(0))

    def nudge(parameter):
        return parameter + 0.1 * np.random.default_rng(1).random(parameter.shape, np.float32)

    return jax.tree.map(nudge, encoding)


def draw(seed: int, *shape: int):
    """Standard normal numbers, by numpy: compiling jax.random for every shape would take most of the time."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


X = draw(10, B, LENGTH, DIMS.width)


WEIGHTS = [DIMS.width**-0.5 * draw(seed, DIMS.width, n, DIMS.head_dim) for seed, n in enumerate((DIMS.num_heads, K, K))]


@jax.jit
def project(x_BTD):
    """Queries, keys and values of embeddings."""
    return tuple(jnp.einsum("BTD,DNH->BTNH", x_BTD, weight) for weight in WEIGHTS)


@jax.jit
def scores(q_BTNH, k_BSKH, bias):
    """float32 [B, N, T, S]."""
    k_BSNH = jnp.repeat(k_BSKH, DIMS.num_heads // K, axis=2)
    return jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH) * DIMS.head_dim**-0.5 + bias


@jax.jit
def mix(q_BTNH, k_BSKH, v_BSKH, bias, q: Positions, k: Positions):
    """Attention over rotated queries and keys, the plain way."""
    visible = (q.index[:, :, None] >= k.index[:, None, :]) & (k.segment[:, None, :] > 0)
    visible &= q.segment[:, :, None] == k.segment[:, None, :]
    masked = jnp.where(visible[:, None], scores(q_BTNH, k_BSKH, bias), -1e30)
    v_BSNH = jnp.repeat(v_BSKH, DIMS.num_heads // K, axis=2)
    return jnp.einsum("BNTS,BSNH->BTNH", jax.nn.softmax(masked), v_BSNH)


def bias_of(encoding, q: Positions, k: Positions):
    """The bias, or zeros of the same form."""
    if encoding.has_bias:
        return encoding.bias(q, k)
    return jnp.zeros((1, DIMS.num_heads, q.position.shape[1], k.position.shape[1]))


def attend(encoding, x_BTD, positions: Positions):
    """A full pass of one attention layer."""
    positions = encoding.assign(positions, LENGTH, None)
    q, k, v = project(encoding.embed(x_BTD, positions))
    q, k = encoding.queries(q, positions), encoding.keys(k, positions)
    return mix(q, k, v, bias_of(encoding, positions, positions), positions, positions)


def single(encoding) -> Positions:
    """One document in each of B rows: as long as the encoding allows, the rest padding."""
    return documents([[min(LENGTH, encoding.max_length or LENGTH)]] * B)


def documents(rows: list[list[int]]) -> Positions:
    """Rows of LENGTH tokens holding documents of these lengths one after the other, then padding. (Numpy: slices of
    jax arrays would compile.)"""
    segments = [np.repeat(np.arange(1, len(row) + 1), row) for row in rows]
    padded = np.stack([np.pad(segment, (0, LENGTH - len(segment))) for segment in segments])
    return jax.tree.map(np.asarray, Positions.packed(jnp.asarray(padded, jnp.int32)))


def cut(positions: Positions, begin: int, end: int) -> Positions:
    return jax.tree.map(lambda a: a[:, begin:end], positions)


# ------------------------------------------------------------------------------------------------- configs and modules


@pytest.mark.parametrize("config_class", [*ENCODINGS.values(), *SCALINGS.values()], ids=[*ENCODINGS, *SCALINGS])
def test_docstring_names_the_paper(config_class):
    own = config_class.__doc__ or ""
    assert not own.startswith(f"{config_class.__name__}("), "needs a docstring of its own, not the dataclass's"
    assert re.search(r"arXiv:\d{4}\.\d{5}", inspect.cleandoc(own)), (
        "name the paper, or the nearest, as arXiv:NNNN.NNNNN"
    )


@each
def test_config_survives_yaml(config):
    text = write_yaml(encode(config))
    assert decode(PositionConfig, yaml.safe_load(text)) == config
    assert hash(config) == hash(decode(PositionConfig, encode(config)))


@each
def test_abstract_module_has_the_same_shapes(config):
    built = config.make(DIMS, jax.random.key(0))
    abstract = jax.eval_shape(lambda: config.make(DIMS, jax.random.key(0)))
    assert jax.tree.structure(abstract) == jax.tree.structure(built)
    assert [a.shape for a in jax.tree.leaves(abstract)] == [b.shape for b in jax.tree.leaves(built)]


@each
def test_parameters_are_float32_and_name_their_axes(config):
    encoding = config.make(DIMS, jax.random.key(0))
    for path, parameter in nnx.to_flat_state(nnx.state(encoding, nnx.Param)):
        assert parameter[...].dtype == jnp.float32, path
        assert len(parameter.axes) == parameter[...].ndim, path
    assert len(jax.tree.leaves(encoding)) == len(jax.tree.leaves(nnx.state(encoding, nnx.Param))), (
        "arrays are parameters"
    )


@each
def test_parameters_depend_on_the_key_alone(config):
    one, same, other = (jax.tree.leaves(config.make(DIMS, jax.random.key(seed))) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not one or any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# --------------------------------------------------------------------------------------------------- shapes and numbers


@each
def test_shapes_and_types(config):
    encoding, dtype = make(config), jnp.bfloat16
    positions = single(encoding)
    q, k = (jnp.ones((B, LENGTH, heads, DIMS.head_dim), dtype) for heads in (DIMS.num_heads, K))
    for result, given in (
        (encoding.embed(X.astype(dtype), positions), X.astype(dtype)),
        (encoding.queries(q, positions), q),
        (encoding.keys(k, positions), k),
    ):
        assert result.shape == given.shape
        assert result.dtype == given.dtype
    if encoding.has_bias:
        bias = encoding.bias(cut(positions, 4, 9), positions)
        assert bias.dtype == jnp.float32
        assert bias.shape in {(1, DIMS.num_heads, 5, LENGTH), (B, DIMS.num_heads, 5, LENGTH)}
        assert encoding.bias(*[Positions.of(X)] * 2).shape == (1, DIMS.num_heads, LENGTH, LENGTH)


@each
def test_bias_of_blocks_is_the_blocks_of_the_bias(config):
    encoding = make(config)
    positions = documents([[LENGTH]] * B)
    if not encoding.has_bias:
        with pytest.raises(AssertionError):
            encoding.bias(positions, positions)
        return
    block = encoding.bias(cut(positions, 6, 12), cut(positions, 3, 9))
    # atol: sandwich sums 64 numbers up to 1, in another order of magnitude where blocks begin elsewhere
    np.testing.assert_allclose(block, encoding.bias(positions, positions)[:, :, 6:12, 3:9], rtol=1e-6, atol=1e-5)


@each
def test_jit_equals_eager(config):
    encoding = make(config)

    def everything(encoding, x, q, k, positions):
        changed = encoding.embed(x, positions), encoding.queries(q, positions), encoding.keys(k, positions)
        return *changed, bias_of(encoding, positions, positions)

    q, k, _ = project(X)
    given = encoding, X, q, k, single(encoding)
    for compiled, eager in zip(jax.jit(everything)(*given), everything(*given), strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=2e-6, atol=2e-6)


@each
def test_one_row_of_positions_serves_the_batch(config):
    encoding = make(config)
    every_row = single(encoding)
    one_row = jax.tree.map(lambda a: a[:1], every_row)
    np.testing.assert_allclose(attend(encoding, X, one_row), attend(encoding, X, every_row), rtol=1e-6, atol=1e-6)


@each
def test_positions_matter(config):
    encoding = make(config)
    if type(encoding) is PositionEncoding:
        pytest.skip("NoPE")
    positions = single(encoding)
    nowhere = dataclasses.replace(positions, position=np.zeros_like(positions.position))
    assert jnp.abs(attend(encoding, X, positions) - attend(encoding, X, nowhere)).max() > 1e-4


@each
def test_finite_far_beyond_training_or_refused(config):
    encoding, length = make(config), 64 * DIMS.train_length
    if encoding.max_length is None:
        encoding.check_range(length)
        positions = documents([[LENGTH]] * B)
        spread = dataclasses.replace(positions, position=positions.position * length // (LENGTH - 1))
        assert jnp.isfinite(attend(encoding, X, spread)).all()
    else:
        encoding.check_range(encoding.max_length)
        with pytest.raises(ConfigError, match=str(length)):
            encoding.check_range(length)


# ------------------------------------------------------------------------------------------------------------ gradients


@each
def test_no_token_sees_a_later_one(config):
    encoding = make(config)
    positions = single(encoding)
    y, pull_back = jax.vjp(lambda x: attend(encoding, x, positions), X)
    last = int(positions.segment[0].sum()) - 1
    for t in (0, last // 2, last):
        reach = np.abs(pull_back(y * (np.arange(LENGTH) == t)[None, :, None, None])[0]).sum((0, 2))
        assert np.all(reach[t + 1 :] == 0)
        assert np.all(reach[: t + 1] > 0)


@each
def test_gradients_are_finite_and_reach_every_parameter(config):
    encoding = make(config)
    positions = single(encoding)
    y, pull_back = jax.vjp(lambda encoding, x: attend(encoding, x, positions), encoding, X)
    of_encoding, of_x = pull_back(y * positions.segment[:, :, None, None])
    assert np.isfinite(of_x).all()
    for path, gradient in nnx.to_flat_state(nnx.state(of_encoding, nnx.Param)):
        assert np.isfinite(gradient[...]).all(), path
        assert np.any(np.asarray(gradient[...]) != 0), path


# ------------------------------------------------------------------------------------- where documents and caches stand


@each
def test_moving_all_positions_changes_no_score(config):
    encoding = make(config)
    if not encoding.shift_invariant:
        pytest.skip("declared: scores depend on absolute positions")
    here = documents([[LENGTH]] * B)
    there = dataclasses.replace(here, position=here.position + 1000)

    def all_scores(positions):
        q, k, _ = project(encoding.embed(X, positions))
        q, k = encoding.queries(q, positions), encoding.keys(k, positions)
        return scores(q, k, bias_of(encoding, positions, positions))

    # float32 angles around 1000 are off by up to 1e-4 each
    np.testing.assert_allclose(all_scores(there), all_scores(here), atol=3e-3)


@each
def test_packed_documents_equal_separate_ones(config):
    """Two documents of unlike length, in both orders, against a row for each."""
    encoding = make(config)
    long = min(14, encoding.max_length or 14)
    short = min(8, long - 2)
    one, two = X[0, :long], X[1, :short]

    def row(*parts):
        parts = [np.asarray(part) for part in parts]
        return np.concatenate([*parts, np.zeros((LENGTH - sum(map(len, parts)), DIMS.width), np.float32)])

    apart = attend(encoding, jnp.asarray(np.stack([row(one), row(two)])), documents([[long], [short]]))
    together = attend(
        encoding, jnp.asarray(np.stack([row(one, two), row(two, one)])), documents([[long, short], [short, long]])
    )
    apart, together = np.asarray(apart), np.asarray(together)
    for found, expected in (
        (together[0, :long], apart[0, :long]),
        (together[0, long : long + short], apart[1, :short]),
        (together[1, :short], apart[1, :short]),
        (together[1, short : short + long], apart[0, :long]),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(together).all(), "padding too"


@each
def test_newest_token_from_a_cache_equals_the_full_pass(config):
    """Keys are cached rotated, one by one, unless the encoding declares that they turn with the length. The cache has
    empty places behind the newest token."""
    encoding = make(config)
    length = min(LENGTH - 5, encoding.max_length or LENGTH)
    given = documents([[length]] * B)
    full = attend(encoding, X, given)
    positions = encoding.assign(given, LENGTH, None)
    q, k, v = (np.array(part) for part in project(encoding.embed(X, positions)))
    where = jax.tree.map(lambda a: a * np.asarray(positions.segment), positions)  # zeros where nothing is
    if encoding.rotates_by_length:
        k[:, length:] = 0
        k = encoding.keys(jnp.asarray(k), where)
    else:
        k = [encoding.keys(jnp.asarray(k[:, t : t + 1]), cut(positions, t, t + 1)) for t in range(length)]
        k = jnp.asarray(np.pad(np.concatenate(k, axis=1), ((0, 0), (0, LENGTH - length), (0, 0), (0, 0))))
    newest = cut(positions, length - 1, length)
    q = encoding.queries(jnp.asarray(q[:, length - 1 : length]), newest)
    step = mix(q, k, v, bias_of(encoding, newest, where), newest, where)
    np.testing.assert_allclose(step[:, 0], full[:, length - 1], rtol=1e-5, atol=1e-5)
