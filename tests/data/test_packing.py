"""Rows: every prediction is made once, targets follow inputs, documents stay apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgpt.data.packing import Documents, Windows, make_rows
from jaxgpt.data.tokens import split_of


def numbered(lengths):
    """Documents whose tokens are all different, so that a token tells where it comes from."""
    ends = np.cumsum([0, *lengths])
    return split_of([np.arange(start, end) for start, end in itertools.pairwise(ends)])


def every_row(rows):
    return rows(np.arange(len(rows)))


def test_windows_cover_the_stream_without_overlap():
    rows = Windows(numbered([5, 6]), 3)
    assert len(rows) == 3
    batch = every_row(rows)
    assert batch["inputs"].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert batch["targets"].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert (batch["segment"] == 1).all()
    assert (batch["weights"] == 1).all()
    assert {name: array.dtype.name for name, array in batch.items()} == {
        **dict.fromkeys(("inputs", "targets", "segment"), "int32"),
        "weights": "float32",
    }


@pytest.mark.parametrize(("tokens", "rows"), [(1, 0), (3, 0), (4, 1), (6, 1), (7, 2)])
def test_a_window_needs_one_token_more_than_its_length(tokens, rows):
    assert len(Windows(numbered([tokens]), 3)) == rows


def test_documents_by_hand():
    # T = 4; predictions 6, 2, 0, 1: pieces of 4 and 2 from the first, 2 from the second, 1 from the last.
    batch = every_row(Documents(numbered([7, 3, 1, 2]), 4))
    assert batch["inputs"].tolist() == [[0, 1, 2, 3], [4, 5, 7, 8], [11, 0, 0, 0]]
    assert batch["targets"].tolist() == [[1, 2, 3, 4], [5, 6, 8, 9], [12, 0, 0, 0]]
    assert batch["segment"].tolist() == [[1, 1, 1, 1], [1, 1, 2, 2], [1, 0, 0, 0]]
    assert batch["weights"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch["weights"].dtype == np.float32


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), sequence_length=st.integers(1, 16))
def test_documents_hold_every_prediction_once_and_stay_apart(lengths, sequence_length):
    split = numbered(lengths)
    rows = Documents(split, sequence_length)
    if not len(rows):
        assert max(lengths) == 1
        return
    batch = every_row(rows)
    real = batch["weights"] > 0
    assert ((batch["segment"] > 0) == real).all()
    ends = set((split.offsets[1:] - 1).tolist())
    expected = [token for token in range(sum(lengths)) if token not in ends]
    assert sorted(batch["inputs"][real].tolist()) == expected
    assert (batch["targets"][real] == batch["inputs"][real] + 1).all()
    document = np.searchsorted(split.offsets, batch["inputs"], side="right")
    for row in range(len(rows)):
        segments = batch["segment"][row][real[row]]
        assert segments[0] == 1
        assert set(np.diff(segments).tolist()) <= {0, 1}
        assert not real[row][len(segments) :].any()  # padding comes last
        for segment in set(segments.tolist()):
            here = batch["segment"][row] == segment
            assert len(set(document[row][here].tolist())) == 1
            assert (np.diff(batch["inputs"][row][here]) == 1).all()


def test_packing_wastes_little():
    lengths = np.random.default_rng(0).integers(2, 129, 2000)
    batch = every_row(Documents(numbered(lengths), 128))
    assert batch["weights"].mean() > 0.98


def test_any_rows_in_any_order_are_the_same_rows():
    for packing in ("windows", "documents"):
        rows = make_rows(numbered([9, 4, 17, 2, 2, 30]), 6, packing)
        everything, some = every_row(rows), rows(np.array([2, 0, 2]))
        for name, array in some.items():
            np.testing.assert_array_equal(array, everything[name][[2, 0, 2]])
