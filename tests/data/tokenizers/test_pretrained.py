"""Tokenizers of published models, made here by the library itself: byte-level BPE as GPT-2's, SentencePiece-like as
Llama's."""

import json

import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.tokenizers.base import TokenizerConfig, load_tokenizer
from jaxgpt.data.tokenizers.pretrained import PretrainedConfig, PretrainedTokenizer
from jaxgpt.errors import ConfigError, DataError

pytestmark = pytest.mark.torch  # the extra hf
TEXTS = ["the cat sat on the mat\n", "größer als 天地 the end of the day", "  two  spaces\tand a tab 👍🏽"] * 8


def byte_level():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made.to_str()


def metaspace():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "t",
        "h",
        "e",
        "▁t",
        "he",
        "▁the",
    ]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return made.to_str()


@pytest.mark.parametrize("text", ["", "the cat", "  größer 天地 👍🏽\n\n\ttab ", "x" * 500])
def test_byte_level_texts_come_back_exactly(text):
    tokenizer = PretrainedTokenizer(byte_level())
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.int32
    assert tokenizer.decode(tokens) == text
    assert tokenizer.byte_lengths[tokens].sum() == len(text.encode())
    assert tokenizer.pieces[tokenizer.separator] == "<|endoftext|>"
    assert tokenizer.byte_lengths[tokenizer.separator] == 0


def test_sentencepiece_like_texts_come_back():
    tokenizer = PretrainedTokenizer(metaspace())
    for text in ("the the", "the 天 the"):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert tokenizer.byte_lengths[tokens].sum() == len(text.encode()) + 1, "and the space before it"
    assert tokenizer.separator == 2
    assert tokenizer.with_special("the")[0] == 1
    assert 1 not in tokenizer.encode("the").tolist()


def test_texts_are_never_cut():
    settings = json.loads(byte_level())
    settings["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    assert len(PretrainedTokenizer(json.dumps(settings)).encode("one two three four")) > 4


@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_a_saved_one_is_the_same(make, tmp_path):
    (tmp_path / "tokenizer.json").write_text(make())
    config = decode(TokenizerConfig, {"type": "pretrained", "path": str(tmp_path)})
    tokenizer = config.train([])
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.vocab_size, again.separator) == (tokenizer.vocab_size, tokenizer.separator)
    np.testing.assert_array_equal(again.encode("the end"), tokenizer.encode("the end"))
    other = PretrainedTokenizer(make(), separator=tokenizer.pieces[5])
    assert other.fingerprint != tokenizer.fingerprint


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"path: give the tokenizer.json"):
        decode(TokenizerConfig, {"type": "pretrained"}, "data.tokenizer")
    with pytest.raises(DataError, match=r"tokenizer.json: no tokenizer can be read here"):
        PretrainedConfig(str(tmp_path)).train([])
    with pytest.raises(DataError, match=r"is not one of the tokenizers library"):
        PretrainedTokenizer("{}")
    with pytest.raises(ConfigError, match=r"'<end>' is not in this vocabulary"):
        PretrainedTokenizer(byte_level(), "<end>")
    without = json.loads(byte_level().replace("<|endoftext|>", "<stop>"))
    with pytest.raises(ConfigError, match=r"none of the usual ones is in this vocabulary"):
        PretrainedTokenizer(json.dumps(without))
    with pytest.raises(ValueError, match="outside the vocabulary"):
        PretrainedTokenizer(byte_level()).decode([99999])


def test_another_tokenizer_in_the_same_place_is_another_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    for number in range(4):
        (tmp_path / "text" / f"{number}.txt").write_text("the cat sat on the mat\n" * 20)
    corpus = {"type": "text", "path": str(tmp_path / "text")}
    tokenizer = {"type": "pretrained", "path": str(tmp_path)}
    config = decode(DataConfig, {"type": "text", "corpus": corpus, "tokenizer": tokenizer}, "data")
    (tmp_path / "tokenizer.json").write_text(byte_level())
    first = config.prepare()
    (tmp_path / "tokenizer.json").write_text(metaspace())
    assert config.prepare().fingerprint != first.fingerprint


def test_usual_ends_are_known(tmp_path):
    tokenizer = PretrainedTokenizer(metaspace(), "<s>")
    assert [tokenizer.pieces[token] for token in tokenizer.ends] == ["<s>", "</s>"]
