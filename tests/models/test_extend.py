import jax
import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.extend import extend
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.randomised import RandomisedConfig
from jaxgpt.nn.position.rope_scaling import LinearConfig, YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig


def test_the_scaling_is_replaced():
    model = extend(DecoderConfig(position=RopeConfig(theta=500.0, scaling=LinearConfig())), YarnConfig(factor=2.0))
    assert model == DecoderConfig(position=RopeConfig(theta=500.0, scaling=YarnConfig(factor=2.0)))
    given = extend(DecoderConfig(), YarnConfig(original_length=7))
    assert given.position == RopeConfig(scaling=YarnConfig(original_length=7))


def test_every_rope_of_a_mapping_is_scaled_and_only_those():
    position = {"local": RopeConfig(), "global": AlibiConfig(), "far": RopeConfig(theta=5.0)}
    model = DecoderConfig(num_layers=3, pattern=("local", "global", "far"), position=position)
    assert extend(model, LinearConfig()).position == {
        "local": RopeConfig(scaling=LinearConfig()),
        "global": AlibiConfig(),
        "far": RopeConfig(theta=5.0, scaling=LinearConfig()),
    }


def test_a_rope_inside_randomised_positions_was_trained_on_their_range():
    model = extend(DecoderConfig(position=RandomisedConfig(), train_length=16, vocab_size=8), YarnConfig())
    assert model.position == RandomisedConfig(inner=RopeConfig(scaling=YarnConfig()))
    inner = model.make(jax.random.key(0)).position.inner
    assert inner.config.scaling.original(inner.spectrum) == 32 * 16


def test_without_a_rope_there_is_nothing_to_extend():
    with pytest.raises(
        ConfigError, match=r"extend: rope is what can be scaled, and .* encoding is alibi; leave extend"
    ):
        extend(DecoderConfig(position=AlibiConfig()), YarnConfig())
