from __future__ import annotations

from jaxgpt.data.tokenizers.bpe import BpeConfig


def test_the_most_frequent_pair_is_merged_first():
    tokenizer = BpeConfig(vocab_size=263, character_coverage=1.0).train(["ab cab dab"])
    assert tokenizer.pieces[0] == "ab"  # 3 times, every other pair once
    assert sorted(tokenizer.pieces[1:]) == [" ", "a", "b", "c", "d"]
    assert [tokenizer.decode([token]) for token in tokenizer.encode("cab b")] == ["c", "ab", " ", "b"]


def test_spaces_and_words_are_pieces_but_never_across_words():
    code = "if x:\n        return the value\n        return the value\n"
    tokenizer = BpeConfig(vocab_size=290).train([code] * 5)
    assert any(piece.strip(" ") == "" and len(piece) > 1 for piece in tokenizer.pieces)
    assert all(" " not in piece.lstrip(" ") for piece in tokenizer.pieces)
    assert not any("\n" in piece for piece in tokenizer.pieces)
