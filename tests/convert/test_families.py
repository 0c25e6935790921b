"""Every family against transformers: what it writes we read, what we write it reads (`pytest -m torch`)."""

from __future__ import annotations

import dataclasses
import logging
import warnings

import jax
import numpy as np
import pytest

from jaxgpt.convert import load_pretrained, save_pretrained
from jaxgpt.convert.families.base import families
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.position.absolute import LearnedConfig
from tests.convert.zoo import MODELS, VOCAB

pytestmark = pytest.mark.torch
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (2, 40))  # past windows and the lengths where scalings begin


@pytest.fixture(scope="module")
def torch():
    warnings.simplefilter("ignore")
    import torch

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    return torch


def build(torch, kind, settings):
    """A model of transformers, every parameter far enough from its start to show."""
    import transformers

    attention = "sdpa" if settings.get("alibi") else "eager"  # the eager path of Falcon adds ALiBi twice (5.23)
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.15 * torch.randn_like(parameter)
            parameter.copy_(parameter + noise if "norm" in name or "ln_" in name else noise)
    return model


def logits(torch, model):
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS), use_cache=False).logits.numpy()


run = jax.jit(lambda model: model(TOKENS).logits)


def test_every_family_is_compared():
    assert {kind for kind, _ in MODELS.values()} == set(families())


@pytest.mark.parametrize("name", MODELS)
def test_reads_and_writes_what_transformers_does(torch, name, tmp_path):
    import transformers

    kind, settings = MODELS[name]
    theirs = build(torch, kind, settings)
    theirs.save_pretrained(tmp_path / "theirs")
    wanted = logits(torch, theirs)
    model, config = load_pretrained(tmp_path / "theirs")
    np.testing.assert_allclose(run(model), wanted, atol=1e-4)

    assert save_pretrained(model, config, tmp_path / "ours", family=kind) == kind
    attention = "sdpa" if settings.get("alibi") else "eager"
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation=attention).eval()
    np.testing.assert_allclose(logits(torch, again), wanted, atol=1e-5)
    back, _ = load_pretrained(tmp_path / "ours")
    for one, other in zip(jax.tree.leaves(model), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(one, other)


OURS = {
    "llama": DecoderConfig(vocab_size=VOCAB, train_length=64, num_heads=4, width=32, feedforward=GatedConfig()),
    "gpt2": DecoderConfig(vocab_size=VOCAB, train_length=64, width=32, position=LearnedConfig(), bias=True),
    "gpt_neox": DecoderConfig(vocab_size=VOCAB, train_length=64, width=32, bias=True, residual="parallel"),
    "mixtral": DecoderConfig(
        vocab_size=VOCAB, train_length=64, width=32, num_kv_heads=2, feedforward=MixtureConfig(4), norm=RMSNormConfig()
    ),
}
OURS["llama"] = dataclasses.replace(OURS["llama"], norm=RMSNormConfig(1e-6))
OURS["gpt_neox"] = dataclasses.replace(OURS["gpt_neox"], tie_embeddings=False, feedforward=DenseConfig("gelu_erf"))


@pytest.mark.parametrize("name", OURS)
def test_models_of_ours_load_in_transformers(torch, name, tmp_path):
    """Configurations that leave much to their defaults."""
    import transformers

    model = jax.jit(OURS[name].make)(jax.random.key(0))
    assert save_pretrained(model, OURS[name], tmp_path) == name
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    np.testing.assert_allclose(logits(torch, theirs), run(model), atol=1e-4)
