"""Generation against transformers, with the same weights (`pytest -m torch`)."""

from __future__ import annotations

import logging
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.convert import load_pretrained
from jaxgpt.generate import filters
from jaxgpt.generate.__main__ import main
from jaxgpt.generate.beam import BeamSearch, beam_search
from jaxgpt.generate.decode import generate
from tests.convert.zoo import MODELS, VOCAB

pytestmark = pytest.mark.torch
PROMPTS = np.random.default_rng(1).integers(1, VOCAB, (3, 6))


@pytest.fixture(scope="module")
def torch():
    warnings.simplefilter("ignore")
    import torch

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    return torch


def build(torch, name, folder):
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings = MODELS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "mixtral", "deepseek_v3"])
def test_greedy_continuations_are_the_same(torch, name, tmp_path):
    theirs = build(torch, name, tmp_path)
    model, _ = load_pretrained(tmp_path)
    wanted = theirs.generate(torch.from_numpy(PROMPTS), max_new_tokens=14, do_sample=False, pad_token_id=0)
    assert generate(model, PROMPTS.tolist(), 14) == wanted[:, 6:].tolist()


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_beams_are_the_same(torch, length_penalty, early_stopping, tmp_path):
    theirs = build(torch, "gpt2", tmp_path)
    model, _ = load_pretrained(tmp_path)
    end = int(generate(model, PROMPTS[:1].tolist(), 4)[0][-1])
    search = BeamSearch(3, length_penalty, early_stopping)
    found = beam_search(model, PROMPTS.tolist(), 9, search, stop=[end])
    wanted = theirs.generate(
        torch.from_numpy(PROMPTS),
        max_new_tokens=9,
        do_sample=False,
        num_beams=3,
        num_return_sequences=3,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        eos_token_id=end,
        pad_token_id=VOCAB - 1,
        output_scores=True,
        return_dict_in_generate=True,
    )
    scores = wanted.sequences_scores.numpy().reshape(3, 3)
    rows = wanted.sequences[:, 6:].numpy().reshape(3, 3, -1)
    for mine, row, score in zip(found, rows, scores, strict=True):
        np.testing.assert_allclose([one.score for one in mine], score, rtol=1e-4)
        for one, tokens in zip(mine, row, strict=True):
            assert one.tokens == tokens.tolist()[: len(one.tokens)]


@pytest.mark.parametrize(
    ("name", "value", "warper", "argument"),
    [
        ("top_k", 5, "TopKLogitsWarper", "top_k"),
        ("top_p", 0.7, "TopPLogitsWarper", "top_p"),
        ("min_p", 0.1, "MinPLogitsWarper", "min_p"),
        ("typical_p", 0.6, "TypicalLogitsWarper", "mass"),
        ("epsilon", 0.03, "EpsilonLogitsWarper", "epsilon"),
        ("eta", 0.05, "EtaLogitsWarper", "epsilon"),
    ],
)
def test_filters_are_the_same(torch, name, value, warper, argument):
    import transformers

    logits = (2 * np.random.default_rng(3).standard_normal((50, 40))).astype(np.float32)
    wanted = getattr(transformers, warper)(**{argument: value})(None, torch.from_numpy(logits)).numpy()
    np.testing.assert_array_equal(getattr(filters, name)(jnp.asarray(logits), value), wanted)


def test_a_folder_with_a_tokenizer_generates_text(torch, tmp_path, capsys):
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.data.tokenizers.test_pretrained import byte_level

    settings = {**MODELS["gpt2"][1], "vocab_size": 320, "eos_token_id": 0}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **settings)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(byte_level())
    assert main([str(tmp_path), "--prompt", "the cat", "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out.startswith("the cat")
