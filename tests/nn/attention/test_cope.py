from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.errors import ConfigError
from jaxgpt.nn.attention.cope import ContextualConfig
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerConfig, MixerContext
from jaxgpt.nn.position.base import PositionDims, Positions
from jaxgpt.nn.position.rotary import RopeConfig

T, WIDTH = 6, 16
DIMS = LayerDims(WIDTH, 2, 1, 8, False, 0.0, 0.5, 0.5)
X = jnp.asarray(np.random.default_rng(0).standard_normal((1, T, WIDTH)), jnp.float32)


def test_table_starts_at_zero_and_is_plain_attention_then():
    module = ContextualConfig().make(DIMS, jax.random.key(0))
    assert module.table.shape == (64, 8)
    assert not module.table[...].any()


def test_position_logits_are_of_queries_that_no_encoding_has_turned():
    """Rotary positions turn q.k, not q.e: with keys of no content, k = 0, moving a document changes nothing."""
    module = ContextualConfig(max_position=5).make(DIMS, jax.random.key(0))
    module.key[...] = 0 * module.key[...]
    module.table[...] = jax.random.normal(jax.random.key(1), (5, 8))
    rope = RopeConfig().make(PositionDims(WIDTH, 8, 2, T), jax.random.key(0))
    here = Positions.of(X)
    there = Positions(here.position + 40, here.index, here.segment)
    run = jax.jit(lambda where: module(X, MixerContext(where, rope, Mask()), None)[0])
    np.testing.assert_allclose(run(there), run(here), rtol=1e-6)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"max_position": 1}, "max_position: 1 must be at least 2"),
        ({"implementation": "dense"}, "implementation: 'dense' is not one of cope's"),
    ],
)
def test_impossible_fields(raw, message):
    with pytest.raises(ConfigError, match=message):
        decode(MixerConfig, {"type": "cope", **raw}, "mixer")
