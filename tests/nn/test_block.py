import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.block import Block, dropout
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerContext
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.position.base import PositionEncoding, Positions

DIMS = LayerDims(
    width=16, num_heads=2, num_kv_heads=2, head_dim=8, bias=False, dropout=0.0, init_std=0.3, residual_std=0.3
)
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 16)), jnp.float32)


def context(key=None):
    return MixerContext(Positions.of(X), PositionEncoding(), Mask(), key=key)


def make(placement, rate=0.0):
    parts = (AttentionConfig(), DenseConfig(), RMSNormConfig(), placement, rate)
    return jax.jit(lambda: Block(*parts, DIMS, key=jax.random.key(1)))()


@jax.jit
def run(block, key=None):
    return block(X, context(key), None)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_order_of_norm_and_residual(placement):
    block = make(placement)
    y, state, aux = run(block)

    @jax.jit
    def spelt_out(block):
        def mixer(x):
            return block.mixer(x, context(), None)[0]

        def feedforward(x):
            return block.feedforward(x)[0]

        if placement == "pre":
            middle = X + mixer(block.mixer_norm(X))
            return middle + feedforward(block.feedforward_norm(middle))
        middle = block.mixer_norm(X + mixer(X))
        return block.feedforward_norm(middle + feedforward(middle))

    wanted = spelt_out(block)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    assert state is None
    np.testing.assert_allclose(aux["residual_rms"], np.sqrt((np.asarray(wanted) ** 2).mean()), rtol=1e-5)


def test_parts_are_drawn_by_their_own_names():
    """Another placement, another dropout: the same matrices."""
    one, other = (jax.tree.leaves(make(*arguments)) for arguments in (("pre",), ("post", 0.5)))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_residual_dropout_acts_only_with_a_key():
    block = make("pre", rate=0.5)
    silent, _, _ = run(block)
    np.testing.assert_array_equal(silent, run(make("pre"))[0])
    one, again, other = (run(block, jax.random.key(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
    assert not np.allclose(one, silent)


def test_dropout_zeroes_its_share_and_scales_the_rest():
    x = jnp.ones((100, 100), jnp.bfloat16)
    y = dropout(x, 0.2, jax.random.key(0), "here")
    assert y.dtype == jnp.bfloat16
    assert set(np.unique(np.asarray(y, np.float32))) == {0.0, 1.25}
    assert abs(float((y == 0).mean()) - 0.2) < 0.02
    assert not np.array_equal(y, dropout(x, 0.2, jax.random.key(0), "there")), "every place drops other elements"
    assert dropout(x, 0.2, None, "here") is x
    assert dropout(x, 0.0, jax.random.key(0), "here") is x
