from __future__ import annotations

import pytest

from jaxgpt.data.tokenizers.character import CharacterConfig


def test_known_characters_are_single_tokens_in_order_of_frequency():
    tokenizer = CharacterConfig().train(["中中a", "中ba\n"])
    assert tokenizer.pieces == ("中", "a", "\n", "b")
    assert tokenizer.encode("a中\n").tolist() == [258, 257, 259]
    assert tokenizer.encode("aé").tolist() == [258, 0xC3 + 1, 0xA9 + 1]


def test_rare_characters_give_way():
    assert CharacterConfig(max_characters=2).train(["aaabbc"]).pieces == ("a", "b")
    assert CharacterConfig().known_vocab_size() is None
    with pytest.raises(ValueError, match="max_characters: must be at least 1, got 0"):
        CharacterConfig(max_characters=0)
