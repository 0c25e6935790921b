from __future__ import annotations

from jaxgpt.data.tokenizers.byte import ByteConfig


def test_tokens_are_bytes_shifted_by_one():
    tokenizer = ByteConfig().train([])
    assert tokenizer.encode("Aé\x00").tolist() == [66, 0xC3 + 1, 0xA9 + 1, 1]
    assert tokenizer.vocab_size == ByteConfig().known_vocab_size() == 257
