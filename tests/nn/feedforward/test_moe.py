"""Mixtures of experts by formula; what all feed-forward layers share is in test_contract.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerContext
from jaxgpt.nn.position.base import PositionEncoding, Positions
from jaxgpt.nn.router.expert_choice import ExpertChoiceConfig
from jaxgpt.nn.router.hash import HashRouterConfig
from jaxgpt.nn.router.sigmoid import SigmoidRouterConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig

B, T, D, E = 2, 9, 12, 6
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, D)), jnp.float32)
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, 99, (B, T)), jnp.int32)
DIMS = LayerDims(
    width=D, num_heads=2, num_kv_heads=2, head_dim=6, bias=True, dropout=0.0, init_std=0.5, residual_std=0.5
)
SMALL = MixtureConfig(experts=E, expert=GatedConfig(hidden=8))


@functools.cache
def make(config):
    mixture = jax.jit(lambda: config.make(DIMS, jax.random.key(0)))()
    return jax.tree.map(lambda p: p + 0.1 * np.random.default_rng(1).random(p.shape, np.float32), mixture)


def context(key=None, segment=None):
    where = Positions.of(X) if segment is None else Positions.packed(segment)
    return MixerContext(where, PositionEncoding(), Mask(), key=key, tokens=TOKENS)


@jax.jit
def run(mixture, context):
    return mixture(X, context)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(SMALL, expert=DenseConfig(hidden=8), router=SoftmaxRouterConfig(3, normalise=False)),
        dataclasses.replace(SMALL, router=SigmoidRouterConfig(), shared=GatedConfig(hidden=5), shared_gate=True),
        dataclasses.replace(SMALL, router=HashRouterConfig(), shared=DenseConfig(hidden=5)),
        dataclasses.replace(SMALL, router=ExpertChoiceConfig()),
    ],
    ids=["softmax", "dense experts", "shared", "hash", "expert choice"],
)
def test_is_the_weighted_sum_of_its_experts(config):
    mixture = make(config)
    y, _ = run(mixture, context())
    flat = X.reshape(-1, D)
    choice = mixture.router(flat, TOKENS.reshape(-1)).choice
    wanted = np.zeros((B * T, D))
    for e in range(E):
        expert = jax.tree.map(lambda p, e=e: p[e], mixture.experts)
        out = np.asarray(expert(flat)[0], np.float64)
        if config.router.__class__ is ExpertChoiceConfig:
            for token, weight in zip(choice.tokens_EC[e], choice.weights_EC[e], strict=True):
                wanted[int(token)] += float(weight) * out[int(token)]
        else:
            share = np.where(np.asarray(choice.experts_MK) == e, np.asarray(choice.weights_MK), 0).sum(-1)
            wanted += share[:, None] * out
    if config.shared is not None:
        shared = np.asarray(mixture.shared(flat)[0], np.float64)
        if config.shared_gate:
            shared = shared / (1 + np.exp(-np.asarray(flat @ mixture.shared_gate[...])))
        wanted += shared
    np.testing.assert_allclose(y.reshape(-1, D), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["every", "ragged", "gather"])
def test_implementations_agree(implementation):
    y, _ = run(make(SMALL), context())
    other, _ = run(make(dataclasses.replace(SMALL, implementation=implementation)), context())
    np.testing.assert_allclose(other, y, rtol=1e-5, atol=1e-5)


def test_experts_start_different_and_name_their_axes():
    experts = make(SMALL).experts
    assert experts.up.shape == (E, D, 8)
    assert experts.up.get_metadata()["axes"] == ("expert", "embed", "hidden")
    assert not np.allclose(experts.up[...][0], experts.up[...][1])


def test_only_training_drops():
    tight = dataclasses.replace(SMALL, capacity=0.5)
    whole, aux = run(make(SMALL), context())
    evaluated, aux_evaluated = run(make(tight), context())
    np.testing.assert_allclose(evaluated, whole, rtol=1e-5, atol=1e-5)
    assert "router_dropped" not in aux
    assert "router_dropped" not in aux_evaluated
    trained, aux = run(make(tight), context(jax.random.key(0)))
    assert not np.allclose(trained, whole)
    assert 0.4 < float(aux["router_dropped"]) < 0.9
    roomy, aux = run(make(dataclasses.replace(SMALL, capacity=float(E))), context(jax.random.key(0)))
    np.testing.assert_allclose(roomy, whole, rtol=1e-5, atol=1e-5)
    assert float(aux["router_dropped"]) == pytest.approx(0.0, abs=1e-6)


def test_statistics_are_their_formulas_and_leave_padding_out():
    config = dataclasses.replace(SMALL, balance_loss=0.5, z_loss=0.25)
    segment = jnp.array([[1] * 6 + [0] * 3, [1] * 9])
    real = np.asarray(segment).reshape(-1) > 0
    mixture = make(config)
    _, aux = run(mixture, context(segment=segment))
    routing = mixture.router(X.reshape(-1, D), None)
    p, chosen = np.asarray(routing.probabilities_ME)[real], np.asarray(routing.choice.experts_MK)[real]
    load = np.bincount(chosen.reshape(-1), minlength=E) / chosen.size
    np.testing.assert_allclose(aux["router_load"], load, rtol=1e-5)
    np.testing.assert_allclose(aux["router_entropy"], -(p * np.log(p)).sum(-1).mean(), rtol=1e-4)
    np.testing.assert_allclose(aux["loss/balance"], 0.5 * E * (load * p.mean(0)).sum(), rtol=1e-4)
    z = np.log(np.exp(np.asarray(routing.logits_ME)[real]).sum(-1))
    np.testing.assert_allclose(aux["loss/z"], 0.25 * (z**2).mean(), rtol=1e-4)


def test_balanced_routing_has_the_least_balance_loss():
    """E times sum of f P is 1 where both are even."""
    _, aux = run(make(dataclasses.replace(SMALL, balance_loss=1.0)), context())
    assert float(aux["loss/balance"]) > 0.99


def test_flops_are_those_of_the_experts_a_token_uses():
    each = GatedConfig(hidden=8).flops_per_token(D)
    assert SMALL.flops_per_token(D) == 2 * D * E + 2 * each
    shared = dataclasses.replace(SMALL, shared=DenseConfig(hidden=5), shared_gate=True, router=HashRouterConfig())
    assert shared.flops_per_token(D) == 2 * each + DenseConfig(hidden=5).flops_per_token(D) + 2 * D
    assert SMALL.with_hidden(16).expert.hidden == 16
    assert SMALL.hidden_of(D) == 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"expert": "moe"}, "a mixture is of dense or gated layers"),
        ({"shared_gate": True}, "shared_gate: there is no shared layer"),
        ({"capacity": 1, "router": "expert_choice"}, "capacity: where experts choose"),
        ({"capacity": 0}, "capacity: 0.0 is too small"),
        ({"balance_loss": -1}, "balance_loss: -1.0 is too small"),
        ({"router": {"type": "softmax", "per_token": 9}}, "router.per_token 9 is more than the 8 experts"),
        ({"router": {"type": "softmax", "per_token": 0}}, "per_token must be at least 1"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        decode(FeedForwardConfig, {"type": "moe", **wrong}, "feedforward")


def test_parameters_are_counted_without_statistics():
    sigmoid = make(dataclasses.replace(SMALL, router=SigmoidRouterConfig()))
    names = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(sigmoid, nnx.Param))}
    assert "router/weight" in names
    assert "router/correction" not in names
