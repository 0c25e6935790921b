from __future__ import annotations

import itertools

from jaxgpt.data.corpora.sotu import SotuConfig
from jaxgpt.data.tokenizers.unigram import UnigramConfig


def test_frequent_words_become_pieces():
    texts = [document.text for document in itertools.islice(SotuConfig().documents(), 2)]
    tokenizer = UnigramConfig(vocab_size=400).train(texts)
    tokens = tokenizer.encode(" the United States")
    assert len(tokens) < 12
    assert tokenizer.byte_lengths[tokens].max() >= 4
    assert all(" " not in piece.lstrip(" ") for piece in tokenizer.pieces)
