from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxgpt.errors import ConfigError, DataError
from jaxgpt.evaluate.spans import contexts_of, document_stops, quarter, shares, spread, tokens_of, windows


def test_contexts_are_whole_multiples_in_order_each_once():
    assert contexts_of((4.0, 0.25, 1.0, 1.0), 128, "x") == [32, 128, 512]
    assert tokens_of(0.1, 10, "x") == 1  # not lost to rounding
    assert (quarter(None, 128), quarter(None, 3), quarter(7, 128)) == (32, 1, 7)


@pytest.mark.parametrize("multiple", [0.3, 0.0, -1.0])
def test_a_multiple_that_is_no_number_of_tokens_is_refused_by_path(multiple):
    with pytest.raises(ConfigError, match=r"^evaluate\.x: .* times the training length 8 is no whole number"):
        tokens_of(multiple, 8, "evaluate.x")


@given(st.integers(2, 5000), st.integers(1, 60), st.integers(1, 300))
def test_spread_stretches_fit_and_never_overlap(num_tokens, at_most, length):
    if length + 1 > num_tokens:
        with pytest.raises(DataError, match=f"needs {length + 1} tokens .* there are {num_tokens}"):
            spread(num_tokens, at_most, length, "evaluation")
        return
    starts = spread(num_tokens, at_most, length, "evaluation")
    assert len(starts) == min(at_most, (num_tokens - 1) // length)
    assert starts[0] == 0
    assert (np.diff(starts) >= length).all()
    assert starts[-1] + length + 1 <= num_tokens
    if len(starts) > 1:
        assert starts[-1] + length + 1 == num_tokens  # to the very end
        assert np.ptp(np.diff(starts)) <= 1  # even


def test_windows_end_where_they_should():
    inputs, targets = windows(np.arange(100, dtype=np.uint16), np.array([10, 50]), 3)
    assert inputs.tolist() == [[6, 7, 8], [46, 47, 48]]
    assert targets.tolist() == [[7, 8, 9], [47, 48, 49]]
    assert inputs.dtype == targets.dtype == np.int32


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 60))
def test_shares_are_as_even_as_capacity_allows(capacity, wanted):
    given_ = shares(np.array(capacity), wanted)
    assert given_.sum() == min(wanted, sum(capacity))
    assert (given_ <= capacity).all()
    not_full = given_[given_ < capacity]
    if len(not_full):  # nobody has two more than someone who could take more
        assert given_.max() <= not_full.min() + 1


def test_document_stops_stay_inside_their_documents():
    offsets = np.cumsum([0, 50, 9, 30, 20])
    stops = document_stops(offsets, needed=20, gap=5, places=6, path="p")
    documents = np.searchsorted(offsets, stops, side="left") - 1
    assert (stops - 20 >= offsets[documents]).all()
    assert (stops <= offsets[documents + 1]).all()
    assert np.bincount(documents, minlength=4).tolist() == [3, 0, 2, 1]  # the short one has none, the last room for one
    assert (np.diff(stops) >= 5).all()
    assert stops.tolist() == [20, 35, 50, 79, 89, 109]


def test_one_place_in_a_document_is_its_end_and_many_documents_are_sampled_evenly():
    stops = document_stops(np.arange(0, 1001, 10), needed=5, gap=5, places=4, path="p")
    assert stops.tolist() == [10, 260, 510, 760]


def test_too_many_places_are_refused_with_the_number_that_fits():
    with pytest.raises(DataError, match=r"^p: .* room for 5 of 6 places; set p=5"):
        document_stops(np.array([0, 14, 20]), needed=10, gap=1, places=6, path="p")
