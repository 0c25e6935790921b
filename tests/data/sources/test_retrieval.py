"""Keys in text: each is told once where it is asked for, at its depth, in text of its own part."""

from __future__ import annotations

import dataclasses
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


def test_other_rows_are_another_dataset(dataset, folder):
    others = [dataclasses.replace(dataset.config, **fields) for fields in ({"needles": 2}, {"digits": 3})]
    assert len({one.fingerprint for one in (dataset, *(other.prepare() for other in others))}) == 3
    assert dataset.fingerprint != super_text(dataset).fingerprint


def test_room_is_that_of_the_longest_names(folder):
    config = RetrievalDataConfig(
        corpus=TextConfig(path=str(folder)), tokenizer=ByteConfig(), sequence_length=L, digits=2, needles=4
    )
    dataset = config.prepare()
    longest = 5 * len(" The key of trade is") + 5 * 4 + 4
    dataset.require_room(longest + 1)
    with pytest.raises(DataError, match=f"a context of {longest} tokens has no room .* may take {longest} with the"):
        dataset.require_room(longest)
    assert dataset.examples(longest + 1, 0.5, 200)["inputs"].shape == (200, longest + 1)


def test_training_resumes_and_weighs_answers(dataset):
    iterator = dataset.batches(8, seed=1)
    next(iterator)
    state, expected = iterator.get_state(), next(iterator)
    again = dataset.batches(8, seed=1)
    again.set_state(state)
    assert (next(again)["inputs"] == expected["inputs"]).all()
    assert set(np.unique(expected["weights"])) == {1.0, 8.0}
    assert len(list(dataset.validation_batches(4, 2))) == 2


def test_training_rows_have_one_key_to_all_of_them_and_evaluation_all(folder):
    config = RetrievalDataConfig(
        corpus=TextConfig(path=str(folder)),
        tokenizer=ByteConfig(),
        sequence_length=256,
        validation_fraction=0.3,
        needles=3,
        share=1.0,
    )
    dataset = config.prepare()

    def keys(batch):
        texts = map(dataset.tokenizer.decode, np.append(batch["inputs"], batch["targets"][:, -1:], axis=1))
        told = [re.findall(r" The key of (\w+) is((?: \d){4})\.", text) for text in texts]
        assert all(len({name for name, _ in found}) == len(found) for found in told), "names differ"
        return [len(found) for found in told]

    assert set(keys(next(dataset.batches(40, seed=0)))) == {1, 2, 3}
    assert keys(dataset.examples(256, 0.5, 4)) == [3] * 4


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
    with pytest.raises(ConfigError, match=r"data\.type: retrieval has no tuning split"):
        dataset.config.for_tuning(0.1)
    for fields in ({"share": 0.0}, {"needles": 9}, {"packing": "documents"}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            RetrievalDataConfig(**fields)
    with pytest.raises(ConfigError, match=r"data\.type: retrieval"):
        check(EvaluationConfig({"r": RetrievalProtocolConfig()}, ngram=None), super_text(dataset), L)


def super_text(dataset):
    return super(RetrievalDataConfig, dataset.config).prepare()
