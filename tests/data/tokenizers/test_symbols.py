from __future__ import annotations

import pytest

from jaxgpt.data.tokenizers.base import load_tokenizer
from jaxgpt.data.tokenizers.symbols import SymbolsConfig
from jaxgpt.errors import DataError

CONFIG = SymbolsConfig(("a", "<key>", "10"))


def test_symbols_are_tokens_from_one_on():
    tokenizer = CONFIG.train(["whatever"])
    assert tokenizer.vocab_size == CONFIG.known_vocab_size() == 4
    assert tokenizer.encode(" <key> 10  a").tolist() == [2, 3, 1]
    assert tokenizer.decode([0, 2, 3, 0, 1]) == "<key> 10 a"
    assert tokenizer.byte_lengths.tolist() == [0, 0, 0, 0]


def test_saves_and_loads_as_the_same(tmp_path):
    tokenizer = CONFIG.train([])
    tokenizer.save(tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    assert type(loaded) is type(tokenizer)
    assert (loaded.pieces, loaded.fingerprint) == (tokenizer.pieces, tokenizer.fingerprint)


def test_what_is_no_symbol_is_refused():
    with pytest.raises(DataError, match="'b' is none of the 3 symbols"):
        CONFIG.train([]).encode("a b")
    with pytest.raises(ValueError, match="token 4 is outside the vocabulary of 4"):
        CONFIG.train([]).decode([4])


@pytest.mark.parametrize("symbols", [("a", "a"), ("a", ""), ("a b",)])
def test_symbols_that_could_not_be_read_back_are_refused(symbols):
    with pytest.raises(ValueError, match="must all differ, and none may be empty or hold a space"):
        SymbolsConfig(symbols)
