"""Shards: one array of many files, in place."""

import numpy as np
import pytest

from jaxgpt.data.shards import Shards, open_shard
from jaxgpt.errors import DataError


@pytest.fixture
def shards():
    return Shards(
        [np.arange(0, 5, dtype=np.uint16), np.arange(5, 6, dtype=np.uint16), np.arange(6, 20, dtype=np.uint32)]
    )


def test_they_are_as_one_array(shards):
    whole = np.arange(20)
    assert (len(shards), shards.shape, shards.dtype) == (20, (20,), np.uint32)
    for index in (slice(None), slice(3, 8), slice(4, 4), slice(-6, None), slice(2, 19, 3), np.array([[0, 19], [5, 4]])):
        np.testing.assert_array_equal(shards[index], whole[index])
    assert shards[np.array(-1)] == 19
    np.testing.assert_array_equal(np.asarray(shards), whole)
    with pytest.raises(IndexError):
        shards[np.array([20])]


def test_a_part_is_one_too(shards):
    part, whole = shards.part(4, 9), np.arange(4, 9)
    assert len(part) == 5
    for index in (slice(None), slice(1, 3), np.array([0, 4, 2]), np.array([-1])):
        np.testing.assert_array_equal(part[index], whole[index])
    np.testing.assert_array_equal(part.part(1, 4)[:], whole[1:4])
    with pytest.raises(IndexError):
        part[np.array([5])]


def test_formats(tmp_path):
    tokens = np.array([7, 65535, 0], np.uint16)
    np.save(tmp_path / "a.npy", tokens)
    tokens.tofile(tmp_path / "a.bin")
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, 3
    (tmp_path / "llmc.bin").write_bytes(header.tobytes() + tokens.tobytes())
    header[0] = 20240801
    (tmp_path / "llama.bin").write_bytes(header.tobytes() + tokens.astype("<u4").tobytes())
    for name in ("a.npy", "a.bin", "llmc.bin", "llama.bin"):
        np.testing.assert_array_equal(open_shard(tmp_path / name, "uint16"), tokens)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("odd.bin", b"abc", "3 bytes are no uint16 tokens; set data.dtype"),
        ("empty.bin", b"", "0 bytes are no uint16 tokens"),
        (
            "cut.bin",
            np.array([20240520, 1, 9] + [0] * 253, np.int32).tobytes() + b"aabb",
            "says 9 tokens, and it holds 2",
        ),
        ("text.npy", b"hello", "cannot be read as tokens"),
        ("none.npy", None, "cannot be read as tokens"),
    ],
)
def test_damage_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_shard(tmp_path / name, "uint16")


def test_only_lists_of_tokens(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.int64))
    with pytest.raises(DataError, match=r"holds int64\[2, 3\], not a list of tokens"):
        open_shard(tmp_path / "a.npy", "uint16")
