import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.extend import extend, pin_original_length
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.rope_scaling import LinearConfig, YarnConfig
from jaxgpt.nn.position.rotary import RopeConfig


def test_the_scaling_is_replaced_and_knows_the_old_length():
    model = extend(DecoderConfig(position=RopeConfig(theta=500.0, scaling=LinearConfig())), YarnConfig(factor=2.0), 16)
    assert model == DecoderConfig(position=RopeConfig(theta=500.0, scaling=YarnConfig(factor=2.0, original_length=16)))
    given = extend(DecoderConfig(), YarnConfig(original_length=7), 16)
    assert given.position == RopeConfig(scaling=YarnConfig(original_length=7))


def test_every_rope_of_a_mapping_is_scaled_and_only_those():
    position = {"local": RopeConfig(), "global": AlibiConfig(), "far": RopeConfig(theta=5.0)}
    model = DecoderConfig(num_layers=3, pattern=("local", "global", "far"), position=position)
    scaling = LinearConfig(original_length=16)
    assert extend(model, LinearConfig(), 16).position == {
        "local": RopeConfig(scaling=scaling),
        "global": AlibiConfig(),
        "far": RopeConfig(theta=5.0, scaling=scaling),
    }


def test_without_a_rope_there_is_nothing_to_extend():
    with pytest.raises(
        ConfigError, match=r"extend: rope is what can be scaled, and .* encoding is alibi; leave extend"
    ):
        extend(DecoderConfig(position=AlibiConfig()), YarnConfig(), 16)


def test_a_length_that_was_left_open_is_pinned():
    model = DecoderConfig(position=RopeConfig(scaling=YarnConfig()))
    assert pin_original_length(model, 16).position == RopeConfig(scaling=YarnConfig(original_length=16))
    given = DecoderConfig(position=RopeConfig(scaling=YarnConfig(original_length=8)))
    assert pin_original_length(given, 16) == given
    assert pin_original_length(DecoderConfig(), 16) == DecoderConfig()
