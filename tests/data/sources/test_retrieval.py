"""Keys in text: each is told once where it is asked for, at its depth, in text of its own part."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxgpt.data.corpora.text import TextConfig
from jaxgpt.data.sources.retrieval import RetrievalDataConfig
from jaxgpt.data.tokenizers.byte import ByteConfig
from jaxgpt.errors import ConfigError, DataError
from jaxgpt.evaluate import EvaluationConfig, check, evaluate
from jaxgpt.evaluate.protocols.retrieval import RetrievalProtocolConfig

L = 128


@pytest.fixture
def dataset(folder):
    corpus = TextConfig(path=str(folder))
    return RetrievalDataConfig(
        corpus=corpus, tokenizer=ByteConfig(), sequence_length=L, validation_fraction=0.3
    ).prepare()


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_the_key_asked_for_is_told_at_its_depth(dataset, depth):
    batch = dataset.examples(256, depth, 5)
    assert batch["inputs"].shape == (5, 256)
    for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"], strict=True):
        text = dataset.tokenizer.decode(np.append(inputs, targets[-1]))
        told = re.search(r" The key of (\w+) is((?: \d){4})\.", text)
        assert text.endswith(f" The key of {told[1]} is{told[2]}")
        assert dataset.tokenizer.decode(targets[weights > 0]) == told[2]
        room = 257 - len(told[0]) - len(f" The key of {told[1]} is{told[2]}")
        assert abs(told.start() - depth * room) <= 2


def test_training_resumes_and_weighs_answers(dataset):
    iterator = dataset.batches(8, seed=1)
    next(iterator)
    state, expected = iterator.get_state(), next(iterator)
    again = dataset.batches(8, seed=1)
    again.set_state(state)
    assert (next(again)["inputs"] == expected["inputs"]).all()
    assert set(np.unique(expected["weights"])) == {1.0, 8.0}
    assert len(list(dataset.validation_batches(4, 2))) == 2


def test_accuracy_by_depth_and_context(dataset):
    class Half:
        """Right where the context is short."""

        def __call__(self, inputs, targets, last=None):
            raise AssertionError("accuracy needs no loss")

        def hits(self, inputs, targets, last=None):
            return np.full((len(inputs), last), inputs.shape[1] <= L)

    config = EvaluationConfig({"retrieval": RetrievalProtocolConfig(multiples=(1, 2), examples=2)}, ngram=None)
    check(config, dataset, L)
    found = {(one.metric, one.context): one.value for one in evaluate(Half(), config, dataset, L)}
    assert len(found) == 12
    assert found["passkey_accuracy_depth_25", L] == found["passkey_accuracy", L] == 1.0
    assert found["passkey_accuracy_depth_100", 2 * L] == 0.0


def test_what_cannot_be_is_refused(dataset):
    with pytest.raises(DataError, match="has no room for the keys"):
        dataset.examples(16, 0.0, 1)
    with pytest.raises(DataError, match=r"needs .* for filler"):
        dataset.examples(10**6, 0.0, 1)
    for fields in ({"share": 0.0}, {"needles": 9}, {"packing": "documents"}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            RetrievalDataConfig(**fields)
    with pytest.raises(ConfigError, match=r"data\.type: retrieval"):
        check(EvaluationConfig({"r": RetrievalProtocolConfig()}, ngram=None), super_text(dataset), L)


def super_text(dataset):
    return super(RetrievalDataConfig, dataset.config).prepare()
