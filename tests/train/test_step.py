"""One step: the loss is the weighted mean, parts of a batch sum to the whole, nothing but state and batch decides.

Shapes: B rows, T tokens, V vocabulary.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.position.base import Positions
from jaxgpt.train.step import init_state, loss_sum, loss_sum_in_parts, make_train_step

B, T, V = 4, 8, 32
CONFIG = DecoderConfig(vocab_size=V, train_length=T, num_layers=1, num_heads=2, width=16, layers="scan", init_std=0.3)
SGD = optax.sgd(1.0)


def batch(weights="uneven", seed=0):
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, V, (B, T + 1)).astype(np.int32)
    given = {
        "ones": np.ones((B, T)),
        "zeros": np.zeros((B, T)),
        "uneven": draw.random((B, T)) * (np.arange(B) != 1)[:, None],
    }
    return {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment": np.repeat([[1, 1, 1, 2, 2, 2, 2, 0]], B, axis=0).astype(np.int32),
        "weights": given[weights].astype(np.float32),
    }


@pytest.fixture(scope="module")
def state():
    return jax.jit(lambda: init_state(CONFIG, SGD, seed=0))()


@functools.cache
def train_step(seed=0, packed=False, accumulation=1):
    return jax.jit(make_train_step(SGD, seed=seed, packed=packed, accumulation=accumulation))


def step(state, batch, **options):
    return train_step(**options)(state, batch)


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.model)]


def by_hand(model, batch, positions=None):
    """The weighted mean of the negative log-likelihood, from all logits."""
    losses = -jnp.take_along_axis(
        jax.nn.log_softmax(model(batch["inputs"], positions).logits), batch["targets"][..., None], -1
    )
    return (losses[..., 0] * batch["weights"]).sum() / batch["weights"].sum()


@pytest.mark.parametrize("packed", [False, True])
def test_a_step_is_the_gradient_of_the_weighted_mean(state, packed):
    data = batch()
    positions = Positions.packed(jnp.asarray(data["segment"])) if packed else None
    loss, gradient = jax.jit(jax.value_and_grad(lambda model: by_hand(model, data, positions)))(state.model)
    after, metrics = step(state, data, packed=packed)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    norm = np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(gradient)))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-4)
    for new, old, slope in zip(leaves(after), leaves(state), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(new, old - slope, rtol=1e-4, atol=1e-6)
    assert int(after.step) == 1
    assert int(state.step) == 0


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("weights", ["ones", "uneven"])
def test_parts_of_a_batch_equal_the_whole(state, parts, weights):
    """Also where one part has no weight at all, as row 1 has."""
    (whole, wanted), (summed, metrics) = (step(state, batch(weights), packed=True, accumulation=n) for n in (1, parts))
    for name in ("loss", "gradient_norm"):
        assert float(metrics[name]) == pytest.approx(float(wanted[name]), rel=1e-5)
    chex.assert_trees_all_close(summed.model, whole.model, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_loss_in_parts_is_that_of_the_whole(state, parts):
    rows = batch()
    expected = loss_sum(state.model, rows, packed=False)
    np.testing.assert_allclose(loss_sum_in_parts(state.model, rows, parts), expected, rtol=1e-6)


def test_packed_loss_is_that_of_the_documents_apart(state):
    data = batch("ones")
    data["weights"] = (data["segment"] > 0).astype(np.float32)
    together = jax.jit(lambda model: loss_sum(model, data, packed=True))(state.model)

    def document(model, begin, end):
        cut = {name: array[:, begin:end] for name, array in data.items()}
        return loss_sum(model, cut, packed=False)

    apart = jax.jit(lambda model: document(model, 0, 3) + document(model, 3, 7))(state.model)
    assert float(together) == pytest.approx(float(apart), rel=1e-5)
    unaware = jax.jit(lambda model: loss_sum(model, data, packed=False))(state.model)
    assert float(unaware) != pytest.approx(float(apart), rel=1e-3)


def test_a_batch_without_weight_moves_nothing(state):
    after, metrics = step(state, batch("zeros"))
    assert float(metrics["loss"]) == 0.0
    for one, other in zip(leaves(after), leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_seed_starts_the_same_whatever_a_variant_adds(state):
    wider = dataclasses.replace(CONFIG, tie_embeddings=False)
    other = jax.jit(lambda: init_state(wider, SGD, seed=0))()
    np.testing.assert_array_equal(other.model.embedding[...], state.model.embedding[...])
    np.testing.assert_array_equal(other.model.blocks.mixer.query[...], state.model.blocks.mixer.query[...])
    moved = jax.jit(lambda: init_state(CONFIG, SGD, seed=1))()
    assert not np.allclose(moved.model.embedding[...], state.model.embedding[...])


def with_dropout(state):
    """The same numbers in a model that drops."""
    dropping = dataclasses.replace(CONFIG, residual_dropout=0.5)
    like = jax.eval_shape(lambda: init_state(dropping, SGD, seed=0))
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(state))


def test_dropout_depends_on_seed_and_step_alone(state):
    state = with_dropout(state)
    train = train_step()

    def loss(train, state):
        return float(train(state, batch())[1]["loss"])

    first, again = loss(train, state), loss(train, state)
    assert first == again
    assert loss(train, dataclasses.replace(state, step=jnp.int32(1))) != first
    assert loss(train_step(seed=1), state) != first


def test_parts_of_a_batch_drop_other_elements(state):
    """Two equal halves give one loss each; the same dropout in both would make their mean the first's."""
    state = with_dropout(state)
    data = batch("ones")
    half = {name: array[:2] for name, array in data.items()}
    twice = {name: np.concatenate([array[:2], array[:2]]) for name, array in data.items()}
    one = step(state, half, accumulation=1)[1]["loss"]
    both = step(state, twice, accumulation=2)[1]["loss"]
    assert float(one) != pytest.approx(float(both), rel=1e-6)


def test_training_learns(state):
    adam = optax.adam(1e-2)
    moving = dataclasses.replace(state, optimizer=adam.init(state.model))
    train = jax.jit(make_train_step(adam, seed=0, packed=False))
    losses = []
    for _ in range(30):
        moving, metrics = train(moving, batch("ones"))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
