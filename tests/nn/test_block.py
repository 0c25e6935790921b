import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.attention.multi_head import AttentionConfig
from jaxgpt.nn.block import Block, Wiring, dropout
from jaxgpt.nn.feedforward.dense import DenseConfig
from jaxgpt.nn.mixer.base import LayerDims, Mask, MixerContext
from jaxgpt.nn.norm import Norm, RMSNormConfig
from jaxgpt.nn.position.base import PositionEncoding, Positions

DIMS = LayerDims(
    width=16, num_heads=2, num_kv_heads=2, head_dim=8, bias=False, dropout=0.0, init_std=0.3, residual_std=0.3
)
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 16)), jnp.float32)


def context(key=None):
    return MixerContext(Positions.of(X), PositionEncoding(), Mask(), key=key)


def make(*wiring, **named):
    parts = (AttentionConfig(), DenseConfig(), RMSNormConfig(), Wiring(*wiring, **named))
    block = jax.jit(lambda: Block(*parts, DIMS, key=jax.random.key(1)))()
    for number, norm in enumerate(leaf for leaf in vars(block).values() if isinstance(leaf, Norm)):
        norm.scale[...] = norm.scale[...] + 0.1 * (number + 1)  # so that a norm in another's place shows
    return block


@jax.jit
def run(block, key=None):
    return block(X, context(key), None)


@pytest.mark.parametrize(
    "wiring",
    [
        Wiring(),
        Wiring("post"),
        Wiring("branch"),
        Wiring("sandwich"),
        Wiring("pre", "parallel"),
        Wiring("sandwich", "parallel"),
        Wiring("pre", "parallel_one_norm"),
        Wiring(scale=0.3),
    ],
    ids=str,
)
def test_order_of_norms_and_residuals(wiring):
    block = make(**dataclasses.asdict(wiring))
    y, state, aux = run(block)

    @jax.jit
    def spelt_out(block):
        def mixer(x):
            return block.mixer(x, context(), None)[0]

        def feedforward(x):
            return block.feedforward(x)[0]

        m, f = block.mixer_norm, block.feedforward_norm
        m_after, f_after = block.mixer_after_norm, block.feedforward_after_norm
        match wiring:
            case Wiring("pre", "sequential"):
                middle = X + wiring.scale * mixer(m(X))
                return middle + wiring.scale * feedforward(f(middle))
            case Wiring("post", "sequential"):
                middle = m(X + mixer(X))
                return f(middle + feedforward(middle))
            case Wiring("branch", "sequential"):
                middle = X + m(mixer(X))
                return middle + f(feedforward(middle))
            case Wiring("sandwich", "sequential"):
                middle = X + m_after(mixer(m(X)))
                return middle + f_after(feedforward(f(middle)))
            case Wiring("pre", "parallel"):
                return X + mixer(m(X)) + feedforward(f(X))
            case Wiring("sandwich", "parallel"):
                return X + m_after(mixer(m(X))) + f_after(feedforward(f(X)))
            case Wiring("pre", "parallel_one_norm"):
                assert f is None
                return X + mixer(m(X)) + feedforward(m(X))

    wanted = spelt_out(block)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    assert state is None
    np.testing.assert_allclose(aux["residual_rms"], np.sqrt((np.asarray(wanted) ** 2).mean()), rtol=1e-5)


@pytest.mark.parametrize("wrong", [("post", "parallel"), ("sandwich", "parallel_one_norm")])
def test_wirings_that_do_not_exist(wrong):
    with pytest.raises(ValueError, match="residual 'parallel"):
        Wiring(*wrong)


def test_parts_are_drawn_by_their_own_names():
    """Another placement, another dropout: the same matrices."""
    one, other = (jax.tree.leaves(make(*arguments)) for arguments in (("pre",), ("post", "sequential", 1.0, 0.5)))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_residual_dropout_acts_only_with_a_key():
    block = make(dropout=0.5)
    silent, _, _ = run(block)
    np.testing.assert_array_equal(silent, run(make())[0])
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
