from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.data.tokens import split_of
from jaxgpt.errors import ContextTooLong
from jaxgpt.evaluate import EvaluationConfig, evaluate
from jaxgpt.evaluate.protocols.by_position import ByPositionConfig
from jaxgpt.evaluate.protocols.fixed_target import FixedTargetConfig
from jaxgpt.evaluate.scorer import batched, model_scorer
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.position.absolute import LearnedConfig
from jaxgpt.ops.cross_entropy import token_losses


def rows_of(count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.arange(count * (length + 1), dtype=np.int32).reshape(count, length + 1)
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("last", [None, 2])
def test_batches_have_one_shape_and_padding_rows_are_dropped(oracle, last):
    scorer = oracle(lambda position, target: target + 0.25 * position)
    inputs, targets = rows_of(7, 5)
    losses = batched(scorer, 16)(inputs, targets, last)
    assert scorer.calls == [(3, 5, last)] * 3
    kept = slice(None) if last is None else slice(-last, None)
    assert losses.dtype == np.float32
    np.testing.assert_array_equal(losses, (targets + 0.25 * np.arange(5))[:, kept])


def test_a_row_longer_than_a_batch_goes_alone(oracle):
    scorer = oracle(lambda position, target: target)
    inputs, targets = rows_of(2, 9)
    assert batched(scorer, 4)(inputs, targets).shape == (2, 9)
    assert scorer.calls == [(1, 9, None)] * 2


traces: list[tuple[int, int, int]] = []


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Bigram:
    """A model that predicts from the latest token, and notes when it is traced."""

    table: jax.Array
    longest: int = dataclasses.field(default=8, metadata={"static": True})

    def __call__(self, tokens, logits_from=None):
        if tokens.shape[1] > self.longest:
            raise ContextTooLong(f"learned positions end at {self.longest}")
        traces.append((*tokens.shape, logits_from))
        return SimpleNamespace(logits=self.table[tokens[:, logits_from:]])


@pytest.fixture
def bigram() -> Bigram:
    traces.clear()
    return Bigram(jax.random.normal(jax.random.key(0), (50, 50), jnp.bfloat16))


@pytest.mark.parametrize("last", [None, 2])
def test_model_losses_are_cross_entropies_of_the_last_targets(bigram, last):
    inputs, targets = rows_of(3, 6)
    losses = model_scorer(bigram)(inputs, targets, last)
    logits = np.asarray(bigram.table, np.float64)[inputs]
    expected = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    assert losses.dtype == np.float32
    np.testing.assert_allclose(losses, expected[:, -(last or 6) :], rtol=1e-5)
    assert traces == [(3, 6, 0 if last is None else 4)]


def test_models_of_one_structure_share_a_compilation(bigram):
    inputs, targets = rows_of(2, 7)
    first = model_scorer(bigram)(inputs, targets, 3)
    second = model_scorer(dataclasses.replace(bigram, table=-bigram.table))(inputs, targets, 3)
    assert traces == [(2, 7, 4)]
    assert not np.allclose(first, second)


@pytest.fixture(scope="module")
def decoder():
    """A tiny decoder with learned positions, which end at the training length."""
    config = DecoderConfig(
        num_layers=1, num_heads=2, width=8, vocab_size=50, train_length=8, position=LearnedConfig(init_std=1.0)
    )
    return jax.jit(config.make)(jax.random.key(0))


def test_the_decoder_computes_only_the_logits_that_are_scored(decoder):
    inputs, targets = rows_of(4, 8)
    score = model_scorer(decoder)
    whole = score(inputs, targets)
    np.testing.assert_allclose(score(inputs, targets, 3), whole[:, -3:], rtol=1e-5)
    expected = jax.jit(lambda model: token_losses(model(inputs).logits, targets))(decoder)
    np.testing.assert_allclose(whole, expected, rtol=1e-5)
    assert np.ptp(whole) > 0.01


def test_learned_positions_are_measured_up_to_their_end(decoder, text):
    dataset = text(split_of([np.arange(2000) % 50]))
    protocols = {"fixed": FixedTargetConfig(multiples=(1.0, 2.0)), "positions": ByPositionConfig(window=2.0)}
    measured = evaluate(model_scorer(decoder), EvaluationConfig(protocols), dataset, 8)
    assert [(m.metric, m.context) for m in measured] == [("fixed_target_nll", 8), ("fixed_target_bits_per_byte", 8)]


def test_a_refused_length_passes_through_the_compiler(bigram):
    with pytest.raises(ContextTooLong, match="end at 8"):
        model_scorer(bigram)(*rows_of(2, 9))
