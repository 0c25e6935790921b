import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.lens import analogy, logit_lens, neighbours

V = 30
CONFIG = DecoderConfig(vocab_size=V, train_length=8, num_layers=3, num_heads=2, width=16, layers="scan", init_std=0.3)
TOKENS = np.random.default_rng(0).integers(0, V, (2, 6))


@pytest.fixture(scope="module")
def model():
    return jax.jit(CONFIG.make)(jax.random.key(0))


def test_the_last_layer_predicts_what_the_model_does(model):
    out = model(TOKENS, capture=("residual",))
    lens = logit_lens(model, out.aux["residual"])
    assert lens.shape == (3, 2, 6, V)
    np.testing.assert_allclose(lens[-1], out.logits, rtol=1e-4, atol=1e-4)
    assert not np.allclose(lens[0], out.logits, atol=0.1)


def test_neighbours_point_the_same_way(model):
    moved = jax.tree.map(lambda p: p, model)
    moved.embedding[...] = moved.embedding[...].at[7].set(3 * moved.embedding[...][4])
    found, cosines = neighbours(moved, [4, 7], count=3)
    assert (int(found[0, 0]), int(found[1, 0])) == (7, 4)
    np.testing.assert_allclose(cosines[:, 0], 1.0, rtol=1e-5)
    assert np.all(np.diff(cosines, axis=1) <= 0)
    assert 4 not in found[0]


def test_analogies_add_and_subtract(model):
    moved = jax.tree.map(lambda p: p, model)
    table = np.array(moved.embedding[...])
    table /= np.linalg.norm(table, axis=-1, keepdims=True)
    table[9] = 5 * (table[2] - table[1] + table[3])
    moved.embedding[...] = jnp.asarray(table)
    found, cosines = analogy(moved, 1, 2, 3, count=2)
    assert int(found[0]) == 9
    assert float(cosines[0]) == pytest.approx(1.0, abs=1e-4)
    assert not {1, 2, 3} & set(found.tolist())
