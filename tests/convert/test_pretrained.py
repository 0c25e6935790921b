"""Round trips and mistakes, without transformers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import FrozenMapping
from jaxgpt.convert import ConversionError, load_pretrained, save_pretrained
from jaxgpt.convert.families.base import families, layers
from jaxgpt.convert.function import function
from jaxgpt.convert.settings import Settings
from jaxgpt.convert.tensors import SINGLE, Tensors, write_tensors
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.attention.latent import LatentConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.norm import LayerNormConfig, RMSNormConfig
from jaxgpt.nn.params import flatten
from jaxgpt.nn.position.absolute import LearnedConfig
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.rope_scaling import YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.nn.position.t5 import T5Config
from jaxgpt.nn.router.sigmoid import SigmoidRouterConfig

LLAMA = DecoderConfig(
    vocab_size=50,
    train_length=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    width=24,
    feedforward=GatedConfig(hidden=40),
    norm=RMSNormConfig(1e-6),
    tie_embeddings=False,
)
GPT2 = DecoderConfig(
    vocab_size=50,
    train_length=16,
    num_layers=2,
    num_heads=4,
    width=24,
    position=LearnedConfig(),
    feedforward=DenseConfig(),
    bias=True,
    embedding_dropout=0.1,
)
TOKENS = np.random.default_rng(0).integers(0, 50, (2, 12))


@pytest.fixture(scope="module")
def llama():
    return jax.jit(LLAMA.make)(jax.random.key(0))


@pytest.fixture
def folder(llama, tmp_path):
    save_pretrained(llama, LLAMA, tmp_path)
    return tmp_path


def change(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def rewrite(folder, change):
    """The tensors of a folder, as `change` leaves the mapping of them."""
    with Tensors(folder) as tensors:
        arrays = change({name: tensors[name].copy() for name in tensors})
    write_tensors(folder, {n: (a.shape, a.dtype) for n, a in arrays.items()}, arrays.__getitem__, 10**9)


@pytest.mark.parametrize(("config", "wanted"), [(LLAMA, "llama"), (GPT2, "gpt2")], ids=["llama", "gpt2"])
@pytest.mark.parametrize("shard_bytes", [10**9, 1000])
def test_a_model_of_ours_comes_back(config, wanted, shard_bytes, tmp_path):
    model = jax.jit(config.make)(jax.random.key(0))
    assert save_pretrained(model, config, tmp_path / "new" / "folder", shard_bytes=shard_bytes) == wanted
    back, found = load_pretrained(tmp_path / "new" / "folder")
    assert function(found) == function(config)
    for (name, one), other in zip(flatten(model).items(), flatten(back).values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    np.testing.assert_array_equal(model(TOKENS).logits, back(TOKENS).logits)


MUP = {"mup_base": {"width": 12, "feedforward": {"hidden": 20}}, "tie_embeddings": True, "num_heads": 2}


def test_a_model_of_mup_is_written_where_a_family_has_its_multipliers(tmp_path):
    config = dataclasses.replace(LLAMA, **MUP, embedding_scale="sqrt_width")
    model = jax.jit(config.make)(jax.random.key(0))
    assert save_pretrained(model, config, tmp_path, family="granite") == "granite"
    back, found = load_pretrained(tmp_path)
    assert (found.mup_base, found.logit_scale, found.mixer.scale) == (None, 0.5, 6**-0.5 / 2)
    np.testing.assert_allclose(back(TOKENS).logits, model(TOKENS).logits, rtol=1e-4, atol=1e-6)


def test_types(llama, folder, tmp_path):
    """Those of the file, or those asked for; bfloat16 files stay so."""
    half, config = load_pretrained(folder, dtype="bfloat16")
    assert config.compute_dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("bfloat16")}
    save_pretrained(half, config, tmp_path / "half")
    again, config = load_pretrained(tmp_path / "half")
    assert config.compute_dtype == "bfloat16"
    np.testing.assert_array_equal(again.embedding[...], half.embedding[...])
    full, config = load_pretrained(tmp_path / "half", dtype="float32")
    assert config.compute_dtype == "float32"
    difference = np.abs(full(TOKENS).logits - llama(TOKENS).logits).max()
    assert 0 < difference < 0.05


def test_a_tokenizer_is_taken_over(llama, folder, tmp_path):
    (folder / "tokenizer.json").write_text("{}")
    change(folder, eos_token_id=7)
    save_pretrained(llama, LLAMA, tmp_path / "new", like=folder)
    assert json.loads((tmp_path / "new" / "config.json").read_text())["eos_token_id"] == 7
    assert (tmp_path / "new" / "tokenizer.json").exists()


def test_the_original_length_outside_the_rope_settings_is_preferred(folder):
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 8}
    for outside, wanted in ((None, 8), (12, 12)):
        change(folder, rope_parameters=rope, original_max_position_embeddings=outside)
        position = load_pretrained(folder)[1].position
        assert isinstance(position, RopeConfig)
        assert isinstance(position.scaling, YarnConfig)
        assert position.scaling.original_length == wanted


# ------------------------------------------------------------------------------------------------------------- refusals

GRANITE = {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 0.5}


def refused(folder, message):
    with pytest.raises(ConversionError, match=message) as caught:
        load_pretrained(folder)
    return str(caught.value)


def test_missing_unexpected_and_misshapen_tensors_are_listed(folder):
    def spoil(arrays):
        del arrays["model.layers.1.mlp.up_proj.weight"]
        arrays["model.layers.1.extra"] = np.zeros(3, np.float32)
        arrays["model.norm.weight"] = np.zeros(25, np.float32)
        arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(3, np.float32)  # holds nothing
        return arrays

    rewrite(folder, spoil)
    text = refused(folder, "the tensors do not fit the model")
    assert "missing: model.layers.1.mlp.up_proj.weight [40, 24]" in text
    assert "unexpected: model.layers.1.extra [3]" in text
    assert "misshapen: model.norm.weight is [25], should be [24]" in text
    assert "rotary" not in text


def test_only_a_layer_that_predicts_further_tokens_is_left_out(tmp_path):
    """DeepSeek-V3's stands behind the last layer; one that is a layer like others is not dropped."""
    config = DecoderConfig(
        vocab_size=50,
        train_length=16,
        num_layers=3,
        width=16,
        first_layers=("dense",),
        pattern=("mixture",),
        position=RopeConfig(layout="interleaved"),
        mixer=LatentConfig(kv_rank=8, plain_width=4, rotary_width=4, value_width=4),
        feedforward=FrozenMapping(
            {
                "dense": GatedConfig(hidden=8),
                "mixture": MixtureConfig(4, GatedConfig(hidden=8), SigmoidRouterConfig(), shared=GatedConfig(hidden=8)),
            }
        ),
        norm=RMSNormConfig(1e-6),
        tie_embeddings=False,
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), jax.eval_shape(config.make, jax.random.key(0)))
    assert save_pretrained(zeros, config, tmp_path) == "deepseek_v3"
    change(tmp_path, num_hidden_layers=config.num_layers - 1)
    last = f"model.layers.{config.num_layers - 1}"
    assert f"unexpected: {last}.input_layernorm.weight" in refused(tmp_path, "do not fit the model")
    rewrite(tmp_path, lambda arrays: {**arrays, f"{last}.eh_proj.weight": np.zeros((2, 4), np.float32)})
    assert load_pretrained(tmp_path)[1].num_layers == config.num_layers - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "lama"}, "config.json: model_type 'lama' is not supported; did you mean 'llama'"),
        ({"hidden_act": "tanh"}, "hidden_act is 'tanh', which is not supported"),
        ({"num_attention_heads": 5}, "describes no llama model .*num_heads 5"),
        ({"rope_parameters": {"rope_type": "ntk"}}, "rope_type is 'ntk', which is not supported"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.0}}, "describes no llama model .*fraction"),
        ({"num_hidden_layers": "three"}, "describes no llama model"),
        ({"model_type": "granite", **GRANITE, "logits_scaling": 0.0}, "describes no granite model .*zero"),
    ],
)
def test_settings_that_are_not_supported(folder, settings, message):
    change(folder, **settings)
    refused(folder, message)


def test_settings_that_are_missing(folder):
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    del settings["rms_norm_eps"]
    path.write_text(json.dumps(settings))
    refused(folder, "config.json: rms_norm_eps is missing")
    path.write_text("{")
    refused(folder, "config.json: is not JSON")
    path.write_text("[]")
    refused(folder, "must be a mapping")
    path.unlink()
    refused(folder, "config.json: cannot be read .*give the folder of a checkpoint")


def test_a_head_beside_embeddings_that_are_tied_to_it(folder):
    """A copy of them holds nothing of its own; another matrix contradicts the settings."""
    change(folder, tie_word_embeddings=True)
    refused(
        folder, "lm_head.weight is not model.embed_tokens.weight, and config.json ties them; set tie_word_embeddings"
    )
    rewrite(folder, lambda arrays: {**arrays, "lm_head.weight": arrays["model.embed_tokens.weight"]})
    model, config = load_pretrained(folder)
    assert config.tie_embeddings
    assert "head_matrix" not in flatten(model)


def test_settings_of_a_family_that_it_is_not_computed_with(tmp_path):
    model = jax.jit(GPT2.make)(jax.random.key(0))
    save_pretrained(model, GPT2, tmp_path)
    change(tmp_path, scale_attn_by_inverse_layer_idx=True)
    refused(tmp_path, "of this family only scale_attn_by_inverse_layer_idx = False can be loaded")


@pytest.mark.parametrize(
    ("changes", "family", "message"),
    [
        ({"position": T5Config()}, None, "no family of transformers computes"),
        ({"position": T5Config()}, "llama", "a llama model does not compute .*position must be rope"),
        ({"norm": LayerNormConfig()}, "llama", "it would change model.norm from LayerNormConfig"),
        ({"residual_scale": 0.5}, "llama", "model.residual_scale from 0.5 to 1.0"),
        (MUP, "llama", "model.logit_scale from 0.5 to 1.0"),
        ({**MUP, "head_bias": True}, "granite", "muP divides the head's products by the width, but not its bias"),
        ({"bias": True, "window": 3}, "mistral", "a mistral model does not compute .*bias=True"),
        ({}, "lama", "family 'lama' is not supported; did you mean 'llama'"),
    ],
)
def test_models_that_cannot_be_written(llama, tmp_path, changes, family, message):
    with pytest.raises(ConversionError, match=message):
        save_pretrained(llama, dataclasses.replace(LLAMA, **changes), tmp_path / "none", family=family)
    assert not (tmp_path / "none").exists(), "nothing is written"


def test_a_place_that_cannot_be_written(llama, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConversionError, match="cannot be made"):
        save_pretrained(llama, LLAMA, tmp_path / "file" / "below")


# ----------------------------------------------------------------------------------------------------------- the rest


def test_every_family_names_its_paper_or_report():
    for family in families().values():
        assert "arXiv:" in type(family).__doc__ or "20" in type(family).__doc__, family.model_type


def test_configurations_that_compute_the_same_are_equal():
    spelt = dataclasses.replace(
        LLAMA,
        head_dim=6,
        mixer=AttentionConfig(bias=False, output_bias=False, scale=6**-0.5, implementation="naive"),
        pattern=("a", "b", "c"),
        position=FrozenMapping({"a": RopeConfig(), "b": RopeConfig(), "c": RopeConfig()}),
        residual_dropout=0.3,
    )
    assert function(spelt) == function(LLAMA)
    assert function(dataclasses.replace(LLAMA, position=AlibiConfig())) != function(LLAMA)
    assert function(dataclasses.replace(LLAMA, window=3)) != function(LLAMA)


@pytest.mark.parametrize(
    ("kinds", "first", "pattern"),
    [
        ("aaaa", "", "a"),
        ("abab", "", "ab"),
        ("baaa", "b", "a"),
        ("aabaabaa", "aa", "baa"),
        ("abc", "", "abc"),
        ("a", "", "a"),
    ],
)
def test_layers_are_told_by_the_shortest_pattern(kinds, first, pattern):
    assert layers(kinds) == {"first_layers": tuple(first), "pattern": tuple(pattern)}


def test_settings_are_a_mapping():
    settings = Settings({"a": 1}, "here")
    assert (len(settings), list(settings), settings["a"], settings.get("b", 2)) == (1, ["a"], 1, 2)
    assert (SINGLE in settings, "a" in settings) == (False, True)
