"""The pipeline: exact resume, every epoch complete and in another order, plain errors."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest

from jaxgpt.data import pipeline
from jaxgpt.data.pipeline import batches, pipeline_identity, require_same_pipeline, validation_batches
from jaxgpt.data.tokens import split_of
from jaxgpt.errors import CheckpointError, DataError

PACKINGS = pytest.mark.parametrize("packing", ["windows", "documents"])


@pytest.fixture
def split():
    ends = np.cumsum([0, 40, 7, 90, 3, 25, 60, 33, 50])
    return split_of([np.arange(start, end) for start, end in itertools.pairwise(ends)], "train")


def iterate(split, **fields):
    return batches(split, **{"batch_size": 3, "sequence_length": 8, "seed": 5, **fields})


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
        assert first[name].dtype == second[name].dtype


@PACKINGS
@pytest.mark.parametrize("stop", [0, 1, 9, 23, 60])
def test_resumes_with_the_very_same_batches(split, packing, stop):
    iterator = iterate(split, packing=packing)
    for _ in range(stop):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [next(iterator) for _ in range(20)]
    resumed = iterate(split, packing=packing)
    next(resumed)
    resumed.set_state(state)
    for batch in expected:
        assert_equal(batch, next(resumed))


@PACKINGS
def test_several_readers_share_the_rows_of_a_batch_and_read_no_others(split, packing, monkeypatch):
    asked, make = [], pipeline.make_rows

    def recording(*arguments):
        rows = make(*arguments)

        class Recording:
            __len__ = staticmethod(rows.__len__)

            def __call__(self, numbers_B):
                asked.append(len(numbers_B))
                return rows(numbers_B)

        return Recording()

    monkeypatch.setattr(pipeline, "make_rows", recording)
    shares = (None, np.array([0, 2]), np.array([1]))
    whole, first, last = (iterate(split, packing=packing, only=only) for only in shares)
    for _ in range(9):
        batch, mine, yours = next(whole), next(first), next(last)
        for name, rows in batch.items():
            np.testing.assert_array_equal(mine[name], rows[[0, 2]])
            np.testing.assert_array_equal(yours[name], rows[[1]])
    assert set(asked) == {1, 2, 3}
    assert first.get_state() == whole.get_state(), "a state counts batches, whoever reads"


@pytest.fixture
def mixed(split):
    """Two corpora in one split: documents 0 to 5, and 6 and 7."""
    return dataclasses.replace(split, groups=(("one", 0), ("two", 6)))


@PACKINGS
def test_a_mixture_has_rows_by_weight_and_resumes(mixed, packing):
    first_of_two = int(mixed.offsets[6])

    def draw(iterator, count):
        return [next(iterator) for _ in range(count)]

    how = {"packing": packing, "batch_size": 5, "weights": {"one": 0.2, "two": 0.8}}
    iterator = iterate(mixed, **how)
    found = draw(iterator, 40)
    from_two = np.concatenate([batch["inputs"][:, 0] >= first_of_two for batch in found])
    assert from_two.mean() == pytest.approx(0.8, abs=0.01)
    assert abs(from_two[:50].mean() - 0.8) <= 0.02, "in every stretch, not only in the end"
    row = next(batch["inputs"][0] for batch in found if batch["inputs"][0, 0] < first_of_two)
    assert row.max() < first_of_two, "a row is of one corpus"
    state = json.loads(json.dumps(iterator.get_state()))
    expected = draw(iterator, 10)
    resumed = iterate(mixed, **how)
    resumed.set_state(state)
    for batch in expected:
        assert_equal(batch, next(resumed))
    other = draw(iterate(mixed, **how, seed=6), 3)
    assert any((a["inputs"] != b["inputs"]).any() for a, b in zip(other, found, strict=False))


def test_a_corpus_of_a_mixture_that_fills_no_row_is_named(mixed):
    with pytest.raises(DataError, match="train part two has 83 tokens, needs 129"):
        iterate(mixed, sequence_length=128, weights={"one": 0.5, "two": 0.5})


@PACKINGS
def test_every_epoch_holds_every_row_in_another_order(split, packing):
    once = list(iterate(split, packing=packing, batch_size=1, epochs=1))
    twice = [batch["inputs"][0].tolist() for batch in iterate(split, packing=packing, batch_size=1, epochs=2)]
    first, second = twice[: len(once)], twice[len(once) :]
    assert first == [batch["inputs"][0].tolist() for batch in once]
    assert sorted(first) == sorted(second)
    assert len(set(map(tuple, first))) == len(first)
    assert first != second
    other = [batch["inputs"][0].tolist() for batch in iterate(split, packing=packing, batch_size=1, epochs=1, seed=6)]
    assert sorted(other) == sorted(first)
    assert other != first


@PACKINGS
def test_batches_have_the_shapes_and_types_promised(split, packing):
    batch = next(iterate(split, packing=packing))
    assert sorted(batch) == ["inputs", "segment", "targets", "weights"]
    for name, array in batch.items():
        assert array.shape == (3, 8)
        assert array.dtype == (np.float32 if name == "weights" else np.int32)


def test_a_last_batch_that_is_not_full_joins_the_next_epoch(split):
    rows = 307 // 8  # 38: two epochs fill 25 batches of three and leave one row over
    assert len(list(iterate(split, epochs=2))) == 2 * rows // 3


def test_too_little_text_says_how_much_is_needed(split):
    message = (
        "train has 308 tokens, needs 3201 for a batch of 400 sequences of 8 tokens; "
        "use more text, a smaller batch size or a smaller data.sequence_length"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        iterate(split, batch_size=400)
    with pytest.raises(DataError, match="train has 38 rows of documents, needs 400 for a batch of 400 sequences of 8"):
        iterate(split, batch_size=400, packing="documents")
    with pytest.raises(DataError, match="train has 308 tokens, needs 1001 for a batch of 1 sequences of 1000 tokens"):
        validation_batches(split, 4, 1000)


@PACKINGS
def test_validation_is_all_rows_in_order_padded_to_the_batch(split, packing):
    found = list(validation_batches(split, 4, 8, packing=packing))
    assert {batch["inputs"].shape for batch in found} == {(4, 8)}
    for first, again in zip(found, validation_batches(split, 4, 8, packing=packing), strict=True):
        assert_equal(first, again)
    weights = np.concatenate([batch["weights"] for batch in found])
    real = np.concatenate([batch["inputs"] for batch in found])[weights > 0]
    assert weights.sum() == (304 if packing == "windows" else 300)  # whole windows; all tokens but each document's last
    assert len(set(real.tolist())) == len(real)
    assert_equal({"segment": weights > 0}, {"segment": np.concatenate([batch["segment"] for batch in found]) > 0})


def test_fewer_validation_batches_are_spread_over_the_split(split):
    found = list(validation_batches(split, 4, 8, max_batches=2))
    starts = np.concatenate([batch["inputs"][:, 0] for batch in found])
    assert len(found) == 2
    assert starts.tolist() == [8 * (38 * number // 8) for number in range(8)]
    assert len(list(validation_batches(split, 4, 8, max_batches=100))) == 10


def test_a_state_of_other_data_is_refused():
    saved = json.loads(json.dumps(pipeline_identity("abc", 32, 128, 0, "windows")))
    require_same_pipeline(saved, pipeline_identity("abc", 32, 128, 0, "windows"), "runs/x")
    message = r"^runs/x cannot .* \(batch_size 32, now 16, packing 'windows', now 'documents'\): .*new run$"
    with pytest.raises(CheckpointError, match=message):
        require_same_pipeline(saved, pipeline_identity("abc", 16, 128, 0, "documents"), "runs/x")
    with pytest.raises(CheckpointError, match="dataset_fingerprint None, now 'abc'"):
        require_same_pipeline({}, pipeline_identity("abc", 32, 128, 0, "windows"), "runs/x")
