"""Frequencies and attention factors of the RoPE scalings against those of transformers (`pytest -m torch`)."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.position.longrope import LongRopeConfig
from jaxgpt.nn.position.rope_scaling import (
    DynamicNtkConfig,
    LinearConfig,
    Llama3Config,
    ScalingConfig,
    Spectrum,
    YarnConfig,
)

pytestmark = pytest.mark.torch

ORIGINAL, HEAD = 4096, 64
SHORT = tuple(1 + 0.01 * np.arange(HEAD // 2))
LONG = tuple(np.geomspace(1, 32, HEAD // 2))
CASES = [
    (LinearConfig(factor=4.0), {"rope_type": "linear"}),
    (DynamicNtkConfig(factor=4.0), {"rope_type": "dynamic"}),
    (YarnConfig(factor=4.0), {"rope_type": "yarn"}),
    (
        YarnConfig(factor=16.0, truncate=False, beta_fast=16.0),
        {"rope_type": "yarn", "truncate": False, "beta_fast": 16},
    ),
    (YarnConfig(factor=4.0, attention_factor=1.3), {"rope_type": "yarn", "attention_factor": 1.3}),
    (Llama3Config(), {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    (
        LongRopeConfig(factor=32.0, short_factors=SHORT, long_factors=LONG),
        {"rope_type": "longrope", "short_factor": list(SHORT), "long_factor": list(LONG)},
    ),
]


@pytest.fixture(scope="module")
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their imports', not ours
        import transformers
        import transformers.modeling_rope_utils
    return transformers


@pytest.mark.parametrize("length", [100, ORIGINAL, 4 * ORIGINAL])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize(("ours", "theirs"), CASES, ids=[f"{case[1]['rope_type']}-{n}" for n, case in enumerate(CASES)])
def test_frequencies_and_attention_factor(transformers, ours: ScalingConfig, theirs: dict, theta, length):
    parameters = {"rope_theta": theta, "factor": ours.factor, **theirs}
    if theirs["rope_type"] in ("yarn", "llama3", "longrope"):
        parameters["original_max_position_embeddings"] = ORIGINAL
    config = transformers.LlamaConfig(
        hidden_size=4 * HEAD,
        num_attention_heads=4,
        head_dim=HEAD,
        max_position_embeddings=ORIGINAL,
        rope_parameters=parameters,
    )
    function = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[theirs["rope_type"]]
    wanted, wanted_factor = function(config, "cpu", seq_len=length)
    frequencies, factor = ours.scale(Spectrum(theta, HEAD, ORIGINAL), jnp.array([[length]]))
    np.testing.assert_allclose(np.asarray(frequencies).reshape(-1), wanted.numpy(), rtol=1e-6)
    assert factor == pytest.approx(wanted_factor, rel=1e-6)
