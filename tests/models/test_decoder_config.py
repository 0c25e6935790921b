"""What a decoder's configuration refuses, and why."""

import jax
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.models.base import ModelConfig
from jaxgpt.models.decoder import DecoderConfig


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 30}, "model: num_heads 4 does not divide width 30; choose a divisor or give head_dim"),
        ({"num_kv_heads": 3}, "num_kv_heads 3 does not divide num_heads 4"),
        ({"num_kv_heads": 8}, "num_kv_heads 8 does not divide num_heads 4"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"pattern": ["a", "b", "c"]}, "pattern of 3 layers does not divide num_layers 4"),
        ({"pattern": []}, "pattern of 0 layers"),
        ({"residual_dropout": 1.0}, r"residual_dropout must be at least 0 and below 1, got 1\.0"),
        ({"embedding_dropout": -0.1}, "embedding_dropout must be at least 0"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"pattern": ["a"], "window": {"a": -1}}, "window must be at least 1, got -1"),
        ({"window": {"local": 3}}, r"window names the layer kinds \['local'\], but there are \['global'\]"),
        (
            {"pattern": ["a", "b"], "position": {"a": {"type": "rope"}}},
            r"position names the layer kinds \['a'\], but there are \['a', 'b'\]",
        ),
        ({"norm_placement": "prenorm"}, "norm_placement: 'prenorm' is not possible; did you mean 'pre'"),
        ({"head_dim": 5}, "rope turns pairs of dimensions, and 1 of the head width 5 is 5"),
        ({"width": 36}, "or choose an even head width"),
        ({"head_dim": 2, "position": {"type": "rope", "scaling": "ntk"}}, "needs a rotary width of at least 4"),
        ({"position": {"type": "t5", "max_distance": 3}}, "max_distance: 3 must be greater than 16"),
        ({"pattern": ["a"], "head_dim": 5, "position": {"a": "rope"}}, "rope turns pairs"),
        ({"compute_dtype": "float16"}, "compute_dtype: 'float16' is not possible; did you mean 'bfloat16'"),
    ],
)
def test_configurations_that_cannot_be_built_say_why(wrong, message):
    with pytest.raises(ConfigError, match=message) as caught:
        decode(ModelConfig, {"type": "decoder", **wrong}, "model")
    assert "\n" not in str(caught.value)


def test_sizes_that_are_not_known_are_asked_for():
    with pytest.raises(ConfigError, match=r"model\.vocab_size: not known"):
        DecoderConfig().make(jax.random.key(0))
    with pytest.raises(ConfigError, match=r"model\.train_length: not known; give it or data\.sequence_length"):
        DecoderConfig(vocab_size=8).make(jax.random.key(0))
