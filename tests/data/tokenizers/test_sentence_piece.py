"""The two traps of SentencePiece (spaces, the sign for spaces), and its complaints turned into ways out."""

from __future__ import annotations

import itertools

import pytest

from jaxgpt.data.corpora.sotu import SotuConfig
from jaxgpt.data.tokenizers.base import load_tokenizer
from jaxgpt.data.tokenizers.bpe import BpeConfig
from jaxgpt.data.tokenizers.unigram import UnigramConfig
from jaxgpt.errors import DataError

KINDS = pytest.mark.parametrize("config_class", [BpeConfig, UnigramConfig])
TEXT = [document.text for document in itertools.islice(SotuConfig().documents(), 2)]


@KINDS
def test_a_space_is_one_byte_even_where_training_text_had_none(config_class):
    tokenizer = config_class(vocab_size=266, character_coverage=1.0).train(["天地玄黄宇宙洪荒"] * 3)
    ids = tokenizer.encode("天 地")
    assert tokenizer.decode(ids) == "天 地"
    assert tokenizer.byte_lengths[ids].tolist() == [3, 1, 3]


@KINDS
def test_the_sign_for_a_space_is_spelt_in_bytes(config_class):
    tokenizer = config_class(vocab_size=400).train([*TEXT, "▁the▁"])
    assert tokenizer.encode("▁").tolist() == [0xE2 + 1, 0x96 + 1, 0x81 + 1]
    assert not any("▁" in piece for piece in tokenizer.pieces)


@KINDS
def test_word_by_word_equals_the_whole_line(config_class):
    tokenizer = config_class(vocab_size=400).train(TEXT)
    for line in "the   thing that  thinks, then. ", " they gather the theory of 中 things":
        assert tokenizer.encode(line).tolist() == tokenizer._processor.encode(line)


@KINDS
def test_a_vocabulary_too_large_names_one_that_works(config_class):
    with pytest.raises(DataError, match=r"no \w+ vocabulary of 50000 tokens; this training text yields at") as caught:
        config_class(vocab_size=50_000).train(TEXT)
    possible = int(str(caught.value).split("data.tokenizer.vocab_size=")[1].split()[0])
    assert config_class(vocab_size=possible).train(TEXT).vocab_size == possible


@KINDS
def test_a_vocabulary_too_small_for_its_characters_names_one_that_works(config_class):
    with pytest.raises(DataError, match=r"its characters alone need \d+; set data\.tokenizer\.vocab_size=") as caught:
        config_class(vocab_size=258, character_coverage=1.0).train(TEXT)
    possible = int(str(caught.value).split("data.tokenizer.vocab_size=")[1].split()[0])
    assert config_class(vocab_size=possible, character_coverage=1.0).train(TEXT).vocab_size == possible


@KINDS
def test_empty_training_text_is_an_error(config_class):
    with pytest.raises(DataError, match="the training text is empty, so there is no"):
        config_class().train(["", "\n\n"])


def test_other_complaints_are_passed_on():
    error = BpeConfig()._explained("INTERNAL:\n  something new")
    assert str(error).endswith("no bpe vocabulary of 1024 tokens; SentencePiece says: INTERNAL: something new")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 257}, r"vocab_size: must be at least 258 \(separator, 256 bytes, space\), got 257"),
        ({"character_coverage": 0.5}, r"character_coverage: must be from 0\.9 to 1, got 0\.5"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BpeConfig(**fields)


def test_a_damaged_or_missing_model_is_named(tmp_path):
    BpeConfig(vocab_size=400).train(TEXT).save(tmp_path / "t")
    model = tmp_path / "t" / "tokenizer.model"
    model.write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match=r"tokenizer\.model: the saved tokenizer is damaged"):
        load_tokenizer(tmp_path / "t")
    model.unlink()
    with pytest.raises(DataError, match=r"tokenizer\.model: cannot be read \(No such file"):
        load_tokenizer(tmp_path / "t")


def test_the_library_version_is_part_of_the_key():
    import sentencepiece

    assert BpeConfig.versions() == {"sentencepiece": sentencepiece.__version__}
