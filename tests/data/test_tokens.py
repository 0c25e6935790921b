"""Tokens on disk: what is written is what is read."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgpt.data.corpora.base import Document
from jaxgpt.data.tokenizers.byte import ByteConfig
from jaxgpt.data.tokenizers.character import CharacterTokenizer
from jaxgpt.data.tokens import read_split, require_document_lengths, split_of, write_split
from jaxgpt.errors import DataError

DOCUMENTS = [Document("a", "one"), Document("ö", "größer\n"), Document("c", "3")]


def test_documents_come_back_with_their_separators(tmp_path):
    tokenizer = ByteConfig().train([])
    write_split(tmp_path, "train", DOCUMENTS, tokenizer)
    split = read_split(tmp_path, "train")
    assert isinstance(split.tokens.base, np.memmap)
    assert split.tokens.dtype == np.uint16
    assert (split.name, split.names) == ("train", ("a", "ö", "c"))
    assert (split.num_documents, split.num_tokens) == (3, 4 + 10 + 2)
    assert split.lengths.tolist() == [4, 10, 2]
    for number, document in enumerate(DOCUMENTS):
        tokens = split.document(number)
        assert tokens[0] == tokenizer.separator
        assert tokenizer.decode(tokens) == document.text
    with pytest.raises(IndexError, match="train has documents 0 to 2, not 3"):
        split.document(3)


def test_tokens_are_read_only(tmp_path):
    write_split(tmp_path, "train", DOCUMENTS, ByteConfig().train([]))
    with pytest.raises(ValueError, match="read-only"):
        read_split(tmp_path, "train").tokens[0] = 1


def test_large_vocabularies_take_four_bytes(tmp_path):
    tokenizer = CharacterTokenizer([chr(0x10000 + number) for number in range(70_000)])
    text = chr(0x10000 + 69_999)
    write_split(tmp_path, "train", [Document("a", text)], tokenizer)
    split = read_split(tmp_path, "train")
    assert split.tokens.dtype == np.uint32
    assert split.tokens.tolist() == [0, 257 + 69_999]


def test_digest_follows_tokens_and_ends_of_documents(tmp_path):
    tokenizer = ByteConfig().train([])
    variants = [DOCUMENTS, DOCUMENTS[:2], [Document("a", "one\x00"), *DOCUMENTS[1:]], DOCUMENTS[::-1]]
    digests = [write_split(tmp_path, "train", documents, tokenizer) for documents in variants]
    assert len(set(digests)) == len(variants)
    assert write_split(tmp_path, "train", DOCUMENTS, tokenizer) == digests[0]


def test_a_split_in_memory():
    split = split_of([np.array([0, 5, 6]), np.array([0, 70_000])])
    assert split.tokens.tolist() == [0, 5, 6, 0, 70_000]
    assert split.offsets.tolist() == [0, 3, 5]
    assert split.document(1).tolist() == [0, 70_000]


def test_documents_too_short_for_a_purpose_are_counted():
    split = split_of([np.zeros(size, np.int64) for size in (10, 20, 30)])
    require_document_lengths(split, 20, 2, "evaluation")
    message = (
        r"^validation has 1 documents of at least 25 tokens \(the longest has 30\), needs 2 for fixed targets at 16L; "
        r"use longer documents or a smaller data\.sequence_length$"
    )
    with pytest.raises(DataError, match=message):
        require_document_lengths(split, 25, 2, "fixed targets at 16L")
