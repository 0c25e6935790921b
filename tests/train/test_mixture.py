"""Training with experts: their losses, and corrections that balance without one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgpt import registry
from jaxgpt.config import FrozenMapping
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.params import flatten
from jaxgpt.nn.router.sigmoid import SigmoidRouterConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig
from jaxgpt.train.groups import GroupConfig, make_optimizer
from jaxgpt.train.optimizer.base import OptimizerConfig
from jaxgpt.train.step import init_state, loss_sum, make_train_step, objective

E, V, B, T = 6, 40, 32, 24
CORRECTED = MixtureConfig(E, DenseConfig(hidden=16), SigmoidRouterConfig(correction_rate=0.01), balance_loss=0.0)
TOY = DecoderConfig(vocab_size=V, train_length=T, num_layers=2, num_heads=2, width=16, layers="scan", init_std=0.3)
MIXED = dataclasses.replace(
    TOY,
    num_layers=4,
    first_layers=("dense",),
    pattern=("a", "b", "a"),
    feedforward=FrozenMapping(
        {"dense": DenseConfig(), "a": CORRECTED, "b": dataclasses.replace(CORRECTED, experts=E, expert=DenseConfig())}
    ),
)


def batch(number):
    """Text of a kind: every token says which few may follow."""
    rng = np.random.default_rng(number)
    tokens = np.zeros((B, T + 1), np.int32)
    for t in range(1, T + 1):
        tokens[:, t] = (3 * tokens[:, t - 1] + rng.integers(0, 5, B)) % V
    ones = np.ones((B, T), np.float32)
    return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "segment": ones.astype(np.int32), "weights": ones}


def train(feedforward, steps, model=TOY):
    """The state and the metrics of every step."""
    optimizer = optax.adamw(3e-3, mask=None)
    config = dataclasses.replace(model, feedforward=feedforward)
    state = jax.jit(lambda: init_state(config, optimizer, 0))()
    step = jax.jit(make_train_step(optimizer, seed=0, packed=False))
    metrics = []
    for number in range(steps):
        state, found = step(state, batch(number))
        metrics.append({name: float(value) for name, value in found.items()})
    return state, metrics


@functools.cache
def trained(feedforward):
    return train(feedforward, 250)


def imbalance(metrics, last=40):
    return np.mean([one["router_imbalance"] for one in metrics[-last:]])


@pytest.mark.slow
def test_corrections_balance_without_a_loss():
    """Largest over mean load in the worst layer, within single batches of 1536 choices."""
    corrected, metrics = trained(CORRECTED)
    assert imbalance(metrics) < 1.2
    _, free = trained(dataclasses.replace(CORRECTED, router=SigmoidRouterConfig(correction_rate=0.0)))
    assert imbalance(free) > 1.25
    correction = np.asarray(flatten(corrected.model)["blocks/feedforward/router/correction"])
    assert correction.shape == (2, E)
    assert np.abs(correction).max() > 0.05
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.5


@pytest.mark.slow
def test_a_balancing_loss_balances_too():
    softmax = dataclasses.replace(CORRECTED, router=SoftmaxRouterConfig(), balance_loss=1.0)
    _, metrics = trained(softmax)
    _, free = trained(dataclasses.replace(softmax, balance_loss=0.0))
    assert imbalance(metrics) < imbalance(free) - 0.03


def test_own_losses_are_added_and_not_reported():
    config = dataclasses.replace(TOY, feedforward=MixtureConfig(E, DenseConfig(), balance_loss=0.5, z_loss=0.1))
    model = jax.jit(config.make)(jax.random.key(0))
    data, key = batch(0), jax.random.key(1)
    whole, (alone, _) = objective(model, data, False, key)
    aux = model.hidden(data["inputs"], key=key)[2]
    own = float(aux["loss/balance"].sum() + aux["loss/z"].sum())
    assert aux["loss/z"].shape == (2,)
    np.testing.assert_allclose(float(alone), float(loss_sum(model, data, False)), rtol=1e-5)
    np.testing.assert_allclose(float(whole - alone), own * B * T, rtol=1e-3)
    _, metrics = train(config.feedforward, 1)
    np.testing.assert_allclose(metrics[0]["loss"], float(alone) / (B * T), rtol=0.2)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_corrections_move_by_their_rate_in_layers_of_every_kind(accumulation):
    """Neither the optimizer nor decay touches them."""
    optimizer = optax.adamw(1e-2, weight_decay=0.5)
    state = jax.jit(lambda: init_state(MIXED, optimizer, 0))()
    step = jax.jit(make_train_step(optimizer, seed=0, packed=False, accumulation=accumulation))
    before = flatten(state.model)
    after = flatten(step(state, batch(0))[0].model)
    names = [name for name in before if name.endswith("router/correction")]
    assert names == ["blocks/a/feedforward/router/correction", "blocks/b/feedforward/router/correction"]
    assert [before[name].shape for name in names] == [(2, E), (1, E)]
    for name in names:
        moved = np.abs(np.asarray(after[name] - before[name]))
        assert np.all(moved <= 0.01 + 1e-6)
        assert np.all(moved.max(axis=-1) > 0.005), "in every layer"
    # By the loads of the whole batch, also where it goes through in parts.
    loads = np.asarray(state.model.hidden(batch(0)["inputs"])[2]["router_load"])  # of layers 1 to 3: a, b, a
    change = np.concatenate([np.asarray(after[n] - before[n]) for n in names])[[0, 2, 1]]
    uneven = np.abs(loads - 1 / E) > 1e-6
    np.testing.assert_allclose(change[uneven], 0.01 * np.sign(1 / E - loads)[uneven], rtol=1e-3)


@pytest.mark.parametrize("kind", sorted(registry.kinds(OptimizerConfig)))
def test_under_every_optimizer_corrections_are_sums_of_their_rate(kind):
    """Also where decay is asked of all parameters, for they are none."""
    config = registry.kinds(OptimizerConfig)[kind]()
    groups = (GroupConfig(("blocks/*",), weight_decay=True),)
    optimizer = make_optimizer(config, lambda step: 1e-2, 1.0, groups)
    state = jax.jit(lambda: init_state(MIXED, optimizer, 0))()
    step = jax.jit(make_train_step(optimizer, seed=0, packed=False))
    for number in range(4):
        state, _ = step(state, batch(number))
    models = [state.model, config.average(state.optimizer, state.model)] if config.averages else [state.model]
    for model in models:
        for name, array in flatten(model).items():
            if name.endswith("router/correction"):
                steps = np.asarray(array) / 0.01
                assert np.any(steps != 0)
                np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)


def test_dropping_is_reported():
    _, metrics = train(MixtureConfig(E, DenseConfig(), capacity=0.6), 2)
    assert 0.3 < metrics[0]["router_dropped"] < 0.9
    assert jnp.isfinite(metrics[-1]["loss"])
