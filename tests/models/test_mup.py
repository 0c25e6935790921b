"""muP's factors against the paper's tables, and a base model that is left as it is, bit for bit."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from jaxgpt.config import FrozenMapping, content_hash, decode, encode
from jaxgpt.errors import ConfigError
from jaxgpt.models.base import ModelConfig
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.mup import Growth
from jaxgpt.nn.attention.cope import ContextualConfig
from jaxgpt.nn.attention.differential import DifferentialConfig
from jaxgpt.nn.attention.fox import ForgettingConfig
from jaxgpt.nn.attention.latent import LatentConfig
from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig
from jaxgpt.nn.params import flatten
from jaxgpt.nn.position.absolute import LearnedConfig

V, T = 24, 8
TOKENS = np.random.default_rng(0).integers(0, V, (2, T)).astype(np.int32)
BASE = DecoderConfig(vocab_size=V, train_length=T, num_layers=2, num_heads=2, width=16)
HALF, QUARTER = 0.5, 0.25  # 1/sqrt(m) and 1/m of what is four times as wide


def wide(**changes):
    """Four times as wide as BASE, by four times as many heads of the same width."""
    usual = {"width": 64, "num_heads": 8, "mup_base": {"width": 16, "num_heads": 2}}
    return dataclasses.replace(BASE, **usual | changes)


def draw(config, seed=0):
    return jax.jit(config.make)(jax.random.key(seed))


def factors(config):
    """Last parts of paths -> (deviation, Adam's learning rate)."""
    return {path.removeprefix("blocks/"): (one.std, one.rate) for path, one in config.growth().items()}


# ---------------------------------------------------------------------------------------------------------------- rules


def test_the_factors_of_the_tables():
    """Table 3: both sides grow; only the inputs; only the outputs."""
    both, inputs, outputs = Growth(64, 64, 16, 16), Growth(64, 3, 16, 3), Growth(16, 64, 16, 16)
    assert (both.std, both.rate) == (HALF, QUARTER)
    assert (inputs.std, inputs.rate) == (QUARTER, QUARTER)
    assert (outputs.std, outputs.rate) == (1, 1)


MLP = {"feedforward/up": (HALF, QUARTER), "feedforward/down": (HALF, QUARTER)}
SELF = {f"mixer/{name}": (HALF, QUARTER) for name in ("query", "key", "value", "output")}
SHARED = {f"mixer/{name}": (QUARTER, QUARTER) for name in ("key", "value")}
CASES = {
    "heads": (wide(), {**SELF, **MLP}),
    "biases and tables": (wide(bias=True, position=LearnedConfig(), tie_embeddings=False), {**SELF, **MLP}),
    "wider heads": (wide(num_heads=2, mup_base={"width": 16}), {**SELF, **MLP}),
    "as many key-value heads": (wide(num_kv_heads=2), {**SELF, **SHARED, **MLP}),
    "more key-value heads": (
        wide(num_kv_heads=4, mup_base={"width": 16, "num_heads": 2, "num_kv_heads": 1}),
        {**SELF, **MLP},
    ),
    "gated": (wide(feedforward=GatedConfig(multiplier=2.0)), {**SELF, **MLP, "feedforward/gate": (HALF, QUARTER)}),
    "hidden width that stays": (
        wide(feedforward=DenseConfig(hidden=40)),
        {**SELF, "feedforward/up": (QUARTER, QUARTER), "feedforward/down": (1, 1)},
    ),
    "hidden width that is told": (
        wide(
            feedforward=DenseConfig(hidden=160),
            mup_base={"width": 16, "num_heads": 2, "feedforward": {"hidden": 40}},
        ),
        {**SELF, **MLP},
    ),
    "mixture": (
        wide(feedforward=MixtureConfig(4, DenseConfig(), shared=DenseConfig(), shared_gate=True)),
        {
            **SELF,
            **{path.replace("forward/", "forward/experts/"): one for path, one in MLP.items()},
            **{path.replace("forward/", "forward/shared/"): one for path, one in MLP.items()},
            "feedforward/router/weight": (QUARTER, QUARTER),
            "feedforward/shared_gate": (QUARTER, QUARTER),
        },
    ),
    "forgetting": (wide(mixer=ForgettingConfig()), {**SELF, **MLP, "mixer/gate": (HALF, QUARTER)}),
    "latent": (
        wide(mixer=LatentConfig(kv_rank=6, query_rank=10)),
        {
            "mixer/query_down": (QUARTER, QUARTER),
            "mixer/query": (1, 1),
            "mixer/latent": (QUARTER, QUARTER),
            "mixer/rotary_key": (QUARTER, QUARTER),
            "mixer/key": (1, 1),
            "mixer/value": (1, 1),
            "mixer/output": (HALF, QUARTER),
            **MLP,
        },
    ),
    "latent that grows": (
        wide(
            mixer=LatentConfig(kv_rank=24),
            mup_base={"width": 16, "num_heads": 2, "mixer": {"kv_rank": 6}},
        ),
        {
            **{f"mixer/{name}": (HALF, QUARTER) for name in ("query", "latent", "key", "value", "output")},
            "mixer/rotary_key": (QUARTER, QUARTER),
            **MLP,
        },
    ),
    "layers of two kinds": (
        wide(pattern=("a", "b"), feedforward=FrozenMapping({"a": DenseConfig(), "b": DenseConfig("relu")})),
        {f"{kind}/{path}": one for kind in "ab" for path, one in {**SELF, **MLP}.items()},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_factors_by_parameter(case):
    """Those of matrices that grew; embeddings, tables, gains, biases and the head have none."""
    config, wanted = CASES[case]
    assert factors(config) == wanted


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_drawn_with_their_deviations(case):
    """Against the same model without muP: the same draws, times the factors."""
    config, wanted = CASES[case]
    plain = flatten(draw(dataclasses.replace(config, mup_base=None)))
    for path, array in flatten(draw(config)).items():
        std, _ = wanted.get(path.removeprefix("blocks/"), (1, 1))
        np.testing.assert_array_equal(array, std * plain[path], err_msg=path)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_divided_by_the_width_and_biases_are_not(tied):
    config = wide(tie_embeddings=tied, head_bias=True)
    model = draw(config)
    bias, x = np.linspace(-1, 1, V), np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    model.head_bias = model.head_bias.replace(bias.astype(np.float32))
    matrix = np.asarray(model.embedding[...]).T if tied else np.asarray(model.head_matrix[...])
    np.testing.assert_allclose(model.head().logits(x), x @ matrix / 4 + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_scores_fall_with_the_head_width_not_its_root(scale):
    """Appendix of the paper, definition 4.1: 1/d, in units of the base model's."""
    config = wide(num_heads=2, mixer=AttentionConfig(scale=scale), mup_base={"width": 16})
    given = 8**-0.5 if scale is None else scale
    assert math.isclose(config.mixer.score_factor(config.layer_dims), given * 8 / 32)
    of_base, of_plain = BASE.layer_dims, dataclasses.replace(config, mup_base=None).layer_dims
    assert config.mixer.score_factor(of_base) == given
    assert config.mixer.score_factor(of_plain) == (32**-0.5 if scale is None else scale)


def test_the_factor_of_embeddings_is_the_base_models():
    assert wide(embedding_scale="sqrt_width").embedding_factor == 4
    assert wide(embedding_scale="sqrt_width", mup_base=None).embedding_factor == 8


# ------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_at_the_base_width_nothing_changes(layers):
    plain = dataclasses.replace(BASE, embedding_scale="sqrt_width", layers=layers)
    based = dataclasses.replace(plain, mup_base={"width": 16})
    assert based.growth() == {}
    one, other = draw(plain), draw(based)
    for (path, array), found in zip(flatten(one).items(), flatten(other).values(), strict=True):
        np.testing.assert_array_equal(found, array, err_msg=path)
    np.testing.assert_array_equal(jax.jit(other)(TOKENS).logits, jax.jit(one)(TOKENS).logits)


def test_it_is_read_written_and_hashed():
    config = wide(mup_base={"width": 16, "num_heads": 2, "feedforward": {"multiplier": 4.0}, "pattern": ["global"]})
    again = decode(ModelConfig, encode(config))
    assert again == config
    assert hash(again) == hash(config)
    assert again.base == BASE
    assert content_hash(config) != content_hash(wide())
    assert content_hash(wide(mup_base=None)) == content_hash(dataclasses.replace(BASE, width=64, num_heads=8))


def test_another_hidden_width_is_another_of_the_base_model():
    """Arms made equally large stay in proportion to it."""
    for feedforward in (DenseConfig(), MixtureConfig(4, DenseConfig())):
        config = wide(feedforward=feedforward).with_hidden(80)
        assert config.feedforward.hidden_of(64) == 80
        assert config.base.feedforward.hidden_of(16) == 20
        assert config.base.num_heads == 2
    kinds = {"pattern": ("a", "b"), "feedforward": FrozenMapping({"a": DenseConfig(), "b": GatedConfig()})}
    assert {one.hidden for one in wide(**kinds).with_hidden(80).base.feedforward.values()} == {20}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mup_base": {"widht": 16}}, r"model: mup_base\.widht: no such key; did you mean 'width'"),
        ({"mup_base": {"width": 0}}, "model: mup_base: width must be at least 1, got 0"),
        ({"mup_base": {"width": 15}}, "model: mup_base: num_heads 4 does not divide width 15"),
        ({"mup_base": {"width": "narrow"}}, r"mup_base\.width: expected a whole number"),
        ({"mup_base": {"pattern": ["a", "b", "c"]}}, "mup_base: pattern of 3 layers does not divide num_layers 4"),
        ({"mup_base": {"head_dim": 5}}, r"model: mup_base: position\.fraction: rope turns pairs of dimensions"),
        ({"mup_base": 16}, "mup_base: expected a mapping, got 16"),
        ({"mup_base": {"width": 64}, "mixer": "cope"}, "mup_base: no rule is known for heads of cope wider than"),
        ({"mup_base": {"width": 64}, "mixer": "differential"}, "let num_heads grow with the width instead"),
    ],
)
def test_configurations_that_cannot_be_a_base_say_why(wrong, message):
    with pytest.raises(ConfigError, match=message):
        decode(ModelConfig, {"type": "decoder", "width": 128, **wrong}, "model")


@pytest.mark.parametrize("mixer", [ContextualConfig(), DifferentialConfig()])
def test_kinds_without_a_rule_for_wider_heads_take_more_of_them(mixer):
    assert factors(wide(mixer=mixer)) == {**SELF, **MLP}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"num_layers": 4}, r"has 4 along 'layer' there and 2 here; the two models may differ in widths only"),
        ({"vocab_size": 5}, r"embedding has 5 along 'vocab' there and 24 here"),
        ({"feedforward": {"experts": 2}}, r"has 2 along 'expert' there and 4 here"),
        ({"bias": True}, r"only one of the two models has blocks/\S+bias; they may differ in widths only"),
        ({"tie_embeddings": False}, "only one of the two models has head_matrix"),
    ],
)
def test_models_that_differ_in_more_than_widths_are_refused(base, message):
    config = wide(feedforward=MixtureConfig(4), mup_base={"width": 16, "num_heads": 2, **base})
    with pytest.raises(ConfigError, match=rf"model\.mup_base: .*{message}"):
        config.make(jax.random.key(0))
