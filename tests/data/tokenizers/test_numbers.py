"""Tokens that are only numbers."""

import numpy as np
import pytest

from jaxgpt.data.tokenizers.base import load_tokenizer
from jaxgpt.data.tokenizers.numbers import NumbersConfig
from jaxgpt.errors import DataError


def test_they_are_written_as_numbers_and_saved(tmp_path):
    tokenizer = NumbersConfig(50257, 50256).train([])
    assert (tokenizer.vocab_size, tokenizer.separator, tokenizer.byte_lengths.sum()) == (50257, 50256, 0)
    np.testing.assert_array_equal(tokenizer.encode("3 14 159"), [3, 14, 159])
    assert tokenizer.decode([50256, 3, 14]) == "3 14"
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert (again.fingerprint, again.vocab_size, again.separator) == (tokenizer.fingerprint, 50257, 50256)
    assert NumbersConfig(50257, 0).train([]).fingerprint != tokenizer.fingerprint


def test_what_is_none_is_refused():
    tokenizer = NumbersConfig(10, 0).train([])
    for text in ("3 ten", "10", "-1"):
        with pytest.raises(DataError, match="is no token"):
            tokenizer.encode(text)
    with pytest.raises(ValueError, match="token 10 is outside"):
        tokenizer.decode([10])
