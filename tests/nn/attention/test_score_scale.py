from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerConfig, MixerContext
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import PositionDims, PositionEncoding, Positions

T, WIDTH, HEADS, HEAD, LENGTH = 6, 16, 2, 8, 4
DIMS = LayerDims(WIDTH, HEADS, HEADS, HEAD, False, 0.0, 0.5, 0.5, train_length=LENGTH)
X = jnp.asarray(np.random.default_rng(0).standard_normal((1, T, WIDTH)), jnp.float32)
ALIBI = AlibiConfig().make(PositionDims(WIDTH, HEAD, HEADS, LENGTH), jax.random.key(0))


def make(scale):
    return AttentionConfig(score_scale=scale).make(DIMS, jax.random.key(1))


def by_formula(module, factors_NT, bias_NTS, window=None):
    """Float64 attention whose q.k are multiplied by a factor per head and query."""
    weights = (module.query, module.key, module.value, module.output)
    q, k, v, out = (np.asarray(p[...], np.float64) for p in weights)
    q, k, v = (np.einsum("TD,DNH->NTH", X[0], weight) for weight in (q, k, v))
    scores = np.einsum("NTH,NSH->NTS", q, k) / np.sqrt(HEAD) * factors_NT[:, :, None] + bias_NTS
    ahead = np.arange(T)[:, None] - np.arange(T)
    scores = np.where((ahead >= 0) & (ahead < (window or T)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("NTS,NSH,NHD->TD", weights / weights.sum(-1, keepdims=True), v, out)


@jax.jit
def run(module, context):
    return module(X, context, None)[0][0]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("scale", ["log_n", "ssmax"])
def test_scores_grow_with_the_keys_a_query_sees(scale, window):
    """ln n / ln L, n the query's own place or the window; the bias of an encoding stays as it is."""
    module = make(scale)
    pace = np.full(HEADS, 1 / math.log(LENGTH))
    if scale == "ssmax":
        np.testing.assert_allclose(module.score_scale[...], pace, rtol=1e-6)
        pace = np.array([0.3, 1.7])
        module.score_scale[...] = jnp.asarray(pace, jnp.float32)
    seen = np.minimum(np.arange(1, T + 1), window or T)
    distance = np.arange(T)[:, None] - np.arange(T)
    bias = -np.array(ALIBI.slopes)[:, None, None] * np.abs(distance)
    wanted = by_formula(module, pace[:, None] * np.log(seen), bias, window)
    found = run(module, MixerContext(Positions.of(X), ALIBI, Mask(window)))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_query_at_the_training_length_is_as_without():
    context = MixerContext(Positions.of(X), PositionEncoding(), Mask())
    plain, scaled = run(make("one"), context), run(make("log_n"), context)
    np.testing.assert_allclose(scaled[LENGTH - 1], plain[LENGTH - 1], rtol=1e-5)
    assert not np.allclose(scaled[LENGTH], plain[LENGTH], rtol=1e-3)


def test_places_count_and_not_what_an_encoding_made_of_them():
    here = Positions.of(X)
    moved = Positions(9 * here.position, here.index, here.segment)
    module = make("log_n")
    wanted = run(module, MixerContext(here, PositionEncoding(), Mask()))
    found = run(module, MixerContext(moved, PositionEncoding(), Mask(), place=here.position))
    np.testing.assert_array_equal(found, wanted)


def test_learned_scales_are_per_head_and_do_not_decay():
    assert make("one").score_scale is None
    assert make("log_n").score_scale is None
    assert make("ssmax").score_scale.get_metadata()["axes"] == ("heads",)
    assert make("ssmax").score_scale.get_metadata()["decay"] is False


def test_unknown_scale_is_named():
    with pytest.raises(ConfigError, match=r"mixer.score_scale: 'log' is not possible"):
        decode(MixerConfig, {"type": "attention", "score_scale": "log"}, "mixer")
