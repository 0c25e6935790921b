from __future__ import annotations

import re

import pytest

from jaxgpt.data.tokenizers.word import WordConfig, WordTokenizer


def test_words_take_the_space_before_them():
    assert WordTokenizer.words.findall("We, the  people\n\n  of 1790.") == [
        *("We", ",", " the", " ", " people", "\n\n ", " of", " 1790", "."),
    ]


def test_frequent_words_are_single_tokens_and_others_bytes():
    tokenizer = WordConfig().train(["the cat the dog", "see the cat"])
    assert tokenizer.pieces == (" cat", " the")
    assert tokenizer.encode(" the cat").tolist() == [258, 257]
    assert tokenizer.encode(" cow").tolist() == [byte + 1 for byte in b" cow"]


def test_every_text_is_all_words():
    text = "".join(map(chr, range(0x3000)))
    assert "".join(WordTokenizer.words.findall(text)) == text
    assert re.sub(WordTokenizer.words, "", text) == ""


def test_limits():
    texts = ["a a a b b c"]
    assert WordConfig(min_count=1).train(texts).pieces == (" a", " b", " c", "a")
    assert WordConfig(max_words=1).train(texts).pieces == (" a",)
    assert WordConfig().known_vocab_size() is None
    with pytest.raises(ValueError, match="max_words: must be at least 1, got 0"):
        WordConfig(max_words=0)
    with pytest.raises(ValueError, match="min_count: must be at least 1, got 0"):
        WordConfig(min_count=0)
