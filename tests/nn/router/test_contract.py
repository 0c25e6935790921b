"""What every router must hold to; kinds are found by name."""

import functools
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
from jaxgpt.nn.feedforward.base import FeedForwardConfig
from jaxgpt.nn.router.base import RouterConfig, Statistic, within_groups
from jaxgpt.nn.router.expert_choice import ExpertChoiceConfig
from jaxgpt.nn.router.hash import HashRouterConfig
from jaxgpt.nn.router.sigmoid import SigmoidRouterConfig
from jaxgpt.nn.router.softmax import SoftmaxRouterConfig
from jaxgpt.ops.experts import ByExpert

M, D, E = 24, 12, 8
X = jnp.asarray(np.random.default_rng(0).standard_normal((M, D)), jnp.float32)
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, 1000, M), jnp.int32)
CONFIGS = [
    pytest.param(config, id=f"{kind}-{number}")
    for kind, found in registry.kinds(RouterConfig).items()
    for number, config in enumerate(found.examples())
]
each = pytest.mark.parametrize("config", CONFIGS)


@functools.cache
def make(config, experts=E):
    return jax.jit(lambda: config.make(D, experts, 0.5, jax.random.key(0)))()


@functools.partial(jax.jit)
def route(router, x, tokens):
    return router(x, tokens)


def shares(routing, experts=E):
    """float [M, E]: the weight of each expert for each token."""
    total, choice = np.zeros((M, experts)), routing.choice
    if isinstance(choice, ByExpert):
        for e, c in np.ndindex(choice.tokens_EC.shape):
            total[choice.tokens_EC[e, c], e] += choice.weights_EC[e, c]
    else:
        for m, k in np.ndindex(choice.experts_MK.shape):
            total[m, choice.experts_MK[m, k]] += choice.weights_MK[m, k]
    return total


@each
def test_docstring_names_the_paper(config):
    assert re.search(r"arXiv:\d{4}\.\d{5}", type(config).__doc__)


@each
def test_config_survives_yaml(config):
    assert decode(RouterConfig, yaml.safe_load(write_yaml(encode(config)))) == config


@each
def test_decisions_are_float32_whatever_the_activations_are(config):
    full, half = (route(make(config), x, TOKENS) for x in (X, X.astype(jnp.bfloat16)))
    for routing in (full, half):
        assert routing.probabilities_ME.dtype == jnp.float32
        weights = routing.choice[1]
        assert weights.dtype == jnp.float32
    np.testing.assert_allclose(full.probabilities_ME.sum(-1), 1.0, rtol=1e-5)


@each
def test_every_token_has_as_many_experts_as_asked_for(config):
    routing = route(make(config), X, TOKENS)
    used = (shares(routing) > 0).sum(axis=1)
    if isinstance(routing.choice, ByExpert):
        assert used.mean() == config.per_token
    else:
        assert np.all(used == config.per_token), "different ones"


@each
def test_a_causal_router_treats_tokens_one_by_one(config):
    whole, part = route(make(config), X, TOKENS), route(make(config), X[:7], TOKENS[:7])
    if make(config).causal:
        np.testing.assert_array_equal(whole.choice.experts_MK[:7], part.choice.experts_MK)
        np.testing.assert_allclose(whole.choice.weights_MK[:7], part.choice.weights_MK, rtol=1e-6)
    else:
        assert not np.allclose(shares(whole)[:7], shares(part._replace(choice=part.choice))[:7])


@each
def test_gradients_reach_what_is_learned_and_nothing_else(config):
    def loss(router):
        routing = router(X, TOKENS)
        return (routing.choice[1] ** 2).sum() + (routing.probabilities_ME**2).sum()

    gradient = jax.jit(jax.grad(loss))(make(config))
    for path, leaf in nnx.to_flat_state(nnx.state(gradient)):
        assert np.isfinite(leaf[...]).all(), path
        assert np.any(leaf[...] != 0) == (not isinstance(leaf, Statistic)), path


@each
def test_too_few_experts_are_refused(config):
    wrong = {"type": "moe", "experts": 1, "router": encode(config)}
    with pytest.raises(ConfigError, match=r"router.per_token 2 is more than the 1 experts"):
        decode(FeedForwardConfig, wrong, "feedforward")


# ---------------------------------------------------------------------------------------------------------- by formula


def logits_of(router):
    z = np.asarray(X, np.float64) @ np.asarray(router.weight[...], np.float64)
    return z if router.bias is None else z + np.asarray(router.bias[...])


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("normalise", [True, False])
def test_softmax_is_its_formula(normalise):
    router = make(SoftmaxRouterConfig(per_token=3, normalise=normalise, scale=1.5))
    found, p = shares(route(router, X, TOKENS)), softmax(logits_of(router))
    for m in range(M):
        chosen = np.argsort(-p[m])[:3]
        weights = p[m, chosen] / (p[m, chosen].sum() if normalise else 1)
        np.testing.assert_allclose(found[m, chosen], 1.5 * weights, rtol=1e-4)


def test_normalised_weights_are_a_softmax_over_the_chosen():
    router = make(SoftmaxRouterConfig(per_token=3))
    found, z = shares(route(router, X, TOKENS)), logits_of(router)
    for m in range(M):
        chosen = np.argsort(-z[m])[:3]
        np.testing.assert_allclose(found[m, chosen], softmax(z[m, chosen]), rtol=1e-4)


def test_sigmoid_corrects_the_choice_and_not_the_weights():
    router = jax.tree.map(lambda p: p, make(SigmoidRouterConfig(per_token=3, scale=2.0)))
    correction = np.random.default_rng(3).standard_normal(E) * 0.5
    router.correction[...] = jnp.asarray(correction, jnp.float32)
    found, scores = shares(route(router, X, TOKENS)), 1 / (1 + np.exp(-logits_of(router)))
    moved = 0
    for m in range(M):
        chosen = np.argsort(-(scores[m] + correction))[:3]
        moved += set(chosen) != set(np.argsort(-scores[m])[:3])
        np.testing.assert_allclose(found[m, chosen], 2 * scores[m, chosen] / scores[m, chosen].sum(), rtol=1e-4)
    assert moved > 3, "the correction decides something"


def test_corrections_grow_where_the_load_is_low():
    router = make(SigmoidRouterConfig(correction_rate=0.01))
    load = jnp.array([0.5, 0.1, 0.125, 0.0, 0.125, 0.05, 0.05, 0.05])
    np.testing.assert_allclose(
        router.change(load)["correction"], [-0.01, 0.01, 0, 0.01, 0, 0.01, 0.01, 0.01], atol=1e-8
    )


def test_groups_leave_out_the_experts_of_weak_groups():
    scores = jnp.array([[0.9, 0.0, 0.5, 0.5, 0.1, 0.2], [0.1, 0.2, 0.3, 0.0, 0.9, 0.8]])
    by_best = within_groups(scores, groups=3, kept=1, best=1, outside=0.0)
    np.testing.assert_allclose(by_best, [[0.9, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.9, 0.8]])
    by_two = within_groups(scores, groups=3, kept=1, best=2, outside=-jnp.inf)
    np.testing.assert_allclose(by_two[0], [-np.inf, -np.inf, 0.5, 0.5, -np.inf, -np.inf])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SoftmaxRouterConfig(groups=3), "router.groups 3 must divide the 8 experts"),
        (SoftmaxRouterConfig(groups=4, groups_kept=5), "router.groups_kept 5 must be from 1 to 4"),
        (SoftmaxRouterConfig(per_token=3, groups=4, groups_kept=1), "hold per_token=3 experts, 2 to a group"),
        (SigmoidRouterConfig(groups=8), "into groups of at least 2"),
    ],
)
def test_groups_that_do_not_fit(config, message):
    with pytest.raises(ValueError, match=message):
        config.check(8)


def test_experts_choose_the_tokens_they_like_best():
    router = make(ExpertChoiceConfig(per_token=2))
    choice, p = route(router, X, TOKENS).choice, softmax(logits_of(router))
    assert choice.tokens_EC.shape == (E, M * 2 // E)
    for e in range(E):
        best = np.argsort(-p[:, e])[: M * 2 // E]
        assert set(np.asarray(choice.tokens_EC[e]).tolist()) == set(best.tolist())
        np.testing.assert_allclose(choice.weights_EC[e], np.sort(p[:, e])[::-1][: M * 2 // E], rtol=1e-4)


@pytest.mark.parametrize(("experts", "per_token"), [(8, 2), (6, 4), (4, 4), (1, 1)])
def test_hashing_spreads_the_vocabulary(experts, per_token):
    config = HashRouterConfig(per_token=per_token)
    tokens = jnp.arange(4000, dtype=jnp.int32)
    chosen = np.asarray(make(config, experts)(jnp.zeros((4000, D)), tokens).choice.experts_MK)
    assert all(len(set(row)) == per_token for row in chosen.tolist())
    counts = np.bincount(chosen.reshape(-1), minlength=experts) / chosen.size
    np.testing.assert_allclose(counts, 1 / experts, atol=0.02)
    other = make(HashRouterConfig(per_token=per_token, seed=1), experts)(jnp.zeros((4000, D)), tokens)
    assert experts == per_token or not np.array_equal(chosen, other.choice.experts_MK)


def test_a_hash_needs_tokens():
    with pytest.raises(AssertionError, match="needs the tokens' numbers"):
        make(HashRouterConfig())(X, None)
