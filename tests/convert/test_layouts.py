"""Layouts undo themselves, and lie as PyTorch's modules do."""

import numpy as np
import pytest

from jaxgpt.convert.layouts import (
    CONV,
    CONV_OUTPUT,
    FLAT,
    LINEAR,
    OUTPUT,
    SAME,
    HeadsJoined,
    HeadsSplit,
    Interleaved,
    Joined,
    PerItem,
)

D, N, K, H, F = 6, 4, 2, 3, 10
CASES = {
    "same": (SAME, [(D,)]),
    "flat": (FLAT, [(N, H)]),
    "linear": (LINEAR, [(D, N, H)]),
    "output": (OUTPUT, [(N, H, D)]),
    "conv": (CONV, [(D, F)]),
    "conv output": (CONV_OUTPUT, [(N, H, D)]),
    "joined": (Joined(LINEAR), [(D, N, H), (D, K, H), (D, K, H)]),
    "joined conv": (Joined(CONV, axis=1), [(D, N, H)] * 3),
    "joined biases": (Joined(FLAT), [(N, H), (K, H), (K, H)]),
    "heads": (HeadsJoined(), [(D, N, H)] * 3),
    "groups": (HeadsJoined(), [(D, N, H), (D, K, H), (D, K, H)]),
    "one key-value head": (HeadsJoined(), [(D, N, H), (D, 1, H), (D, 1, H)]),
    "biases of groups": (HeadsJoined(vector=True), [(N, H), (K, H), (K, H)]),
    "heads split": (HeadsSplit(), [(D, N, 5), (D, N, 7)]),
    "interleaved": (Interleaved(), [(5, D, F)] * 2),
    "items": (PerItem(LINEAR), [(5, D, F)]),
}


@pytest.mark.parametrize(("layout", "shapes"), CASES.values(), ids=CASES)
def test_reading_undoes_writing(layout, shapes):
    rng = np.random.default_rng(0)
    ours = [rng.standard_normal(shape) for shape in shapes]
    theirs = layout.write(ours)
    assert [array.shape for array in theirs] == [tuple(shape) for shape in layout.shapes(shapes)]
    for one, other in zip(layout.read(theirs, shapes), ours, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_linear_maps_as_a_linear_does():
    x, query = np.random.default_rng(0).standard_normal((2, D)), np.random.default_rng(1).standard_normal((D, N, H))
    (weight,) = LINEAR.write([query])
    np.testing.assert_allclose((x @ weight.T).reshape(2, N, H), np.einsum("bd,dnh->bnh", x, query))
    heads, output = np.random.default_rng(2).standard_normal((2, N, H)), np.moveaxis(query, 0, -1)
    (weight,) = OUTPUT.write([output])
    np.testing.assert_allclose(heads.reshape(2, -1) @ weight.T, np.einsum("bnh,nhd->bd", heads, output))


def test_heads_stand_side_by_side_with_their_keys_and_values():
    """As Falcon splits them: [K, queries of the group, key, value, H]."""
    q, k, v = np.arange(N * H).reshape(N, H), 100 + np.arange(K * H).reshape(K, H), 200 + np.arange(K * H).reshape(K, H)
    (joined,) = HeadsJoined(vector=True).write([q, k, v])
    split = joined.reshape(K, N // K + 2, H)
    np.testing.assert_array_equal(split[1, 0], q[2])
    np.testing.assert_array_equal(split[1, 1], q[3])
    np.testing.assert_array_equal(split[:, 2], k)
    np.testing.assert_array_equal(split[:, 3], v)
