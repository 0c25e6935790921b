"""What holds for every tokenizer there is, found by name: exactness first."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgpt import registry
from jaxgpt.config import decode, encode
from jaxgpt.data.corpora.sotu import SotuConfig
from jaxgpt.data.tokenizers.base import (
    FIRST_BYTE,
    Tokenizer,
    TokenizerConfig,
    load_tokenizer,
    most_frequent,
    require_same_tokenizer,
)
from jaxgpt.errors import ConfigError, DataError

KINDS = sorted(kind for kind, config in registry.kinds(TokenizerConfig).items() if config.any_text)
TRAINING = [
    next(SotuConfig().documents()).text,
    "The cat sat on the mat, and the  dog sat on the log.\n\n    def f(x):\n\treturn x  # done\n" * 4,
    "天地玄黄 宇宙洪荒 日月盈昃\n辰宿列張 寒来暑往 the cat\n" * 4,
    "Größe, naïve café: the end of the day at the end of the road.\n" * 4,
]
ODD = [
    "",
    " ",
    "   leading and trailing   ",
    "two  spaces,   three",
    "\n\n a\n \n",
    "tab\tand\r\nreturn\r",
    "\x00",
    "a\x00b\x00",
    "▁",
    "a▁b ▁▁ c▁",
    "▅ ⁇ \u2028\u2029\x85\x1c\x0b\x0c",
    "<unk><s></s><pad><0x41><separator>",
    "中文字符和 English 混合",
    "👩‍👩‍👧‍👦 🇩🇪 👍🏽",
    "e\u0301 é a\u0308\u0304 \u0301",
    "\ufeffbom \ufffd \ufffe \uffff \U0010ffff",
    "\u00a0\u3000\u200b\u200d\u202e",
    "x" * 5000,
    "字" * 3000,
]


@functools.cache
def trained(kind: str) -> Tokenizer:
    raw = {"type": kind, **({"vocab_size": 340} if kind in ("bpe", "unigram") else {})}
    return decode(TokenizerConfig, raw).train(iter(TRAINING))


@pytest.fixture(params=KINDS)
def tokenizer(request) -> Tokenizer:
    return trained(request.param)


def check_exact(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert tokenizer.separator not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.byte_lengths[ids].sum() == len(text.encode())


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_text_comes_back_exactly(tokenizer, text):
    check_exact(tokenizer, text)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=st.one_of(st.text(), st.text(alphabet=" \n\t▁aé中\x00the"), st.text(st.sampled_from(TRAINING[1] + "▁"))))
def test_any_text_comes_back_exactly(kind, text):
    check_exact(trained(kind), text)


def test_training_text_comes_back_exactly(tokenizer):
    for text in TRAINING:
        check_exact(tokenizer, text)


def test_what_was_said_before_does_not_change_the_tokens(tokenizer):
    text = "the cat in the 中 hat"
    first = tokenizer.encode(text)
    for other in ODD:
        tokenizer.encode(other)
    np.testing.assert_array_equal(tokenizer.encode(text), first)


def test_vocabulary_begins_with_separator_and_bytes(tokenizer):
    assert tokenizer.separator == 0
    assert tokenizer.byte_lengths.shape == (tokenizer.vocab_size,)
    assert tokenizer.byte_lengths[0] == 0
    assert (tokenizer.byte_lengths[1:257] == 1).all()
    assert (tokenizer.byte_lengths[257:] > 0).all()
    assert tokenizer.decode([ord("h") + FIRST_BYTE, tokenizer.separator, ord("i") + FIRST_BYTE]) == "hi"


def test_saves_and_loads_as_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "run" / "tokenizer")
    tokenizer.save(tmp_path / "run" / "tokenizer")  # once more over itself
    loaded = load_tokenizer(tmp_path / "run" / "tokenizer")
    assert type(loaded) is type(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocab_size == tokenizer.vocab_size
    for text in TRAINING + ODD:
        np.testing.assert_array_equal(loaded.encode(text), tokenizer.encode(text))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["tokenizer"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_again_gives_the_same(kind):
    config = decode(TokenizerConfig, {"type": kind, **({"vocab_size": 340} if kind in ("bpe", "unigram") else {})})
    again = config.train(iter(TRAINING))
    assert again.fingerprint == trained(kind).fingerprint
    assert config.known_vocab_size() in (None, again.vocab_size)
    assert decode(TokenizerConfig, encode(config)) == config


def test_fingerprints_tell_kinds_apart():
    assert len({trained(kind).fingerprint for kind in KINDS}) == len(KINDS)


def test_a_character_cut_in_two_becomes_a_replacement_sign(tokenizer):
    assert tokenizer.decode([0xE4 + FIRST_BYTE]) == "\ufffd"


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, wrong):
    with pytest.raises(ValueError, match=f"token {wrong} is outside the vocabulary of {tokenizer.vocab_size}"):
        tokenizer.decode(np.array([5, wrong]))


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"half of a surrogate pair \(U\+D800 at character 2\)"):
        tokenizer.encode("ab\ud800")
    check_exact(tokenizer, "ab")


def test_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr("jaxgpt.data.tokenizers.base._REMEMBERED_WORDS", 10)
    tokenizer = decode(TokenizerConfig, {"type": "character"}).train(TRAINING)
    check_exact(tokenizer, " ".join(map(str, range(50))))
    assert not tokenizer._remembered
    check_exact(tokenizer, "short " + "long" * 20)
    assert max(map(len, tokenizer._remembered)) < 33


def test_another_tokenizer_is_refused_by_name():
    tokenizer = trained("bpe")
    require_same_tokenizer(tokenizer.fingerprint, tokenizer, "runs/x")
    with pytest.raises(DataError, match=r"runs/x was made with the tokenizer 0123, not with this bpe .* of 340"):
        require_same_tokenizer("0123", tokenizer, "runs/x")


def test_a_missing_or_damaged_tokenizer_is_named(tmp_path):
    with pytest.raises(DataError, match=r"tokenizer\.json: no tokenizer can be read here \(No such file"):
        load_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    trained("character").save(tmp_path)
    content = json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json: the saved tokenizer is damaged"):
        load_tokenizer(tmp_path)
    path.write_text(json.dumps({**content, "pieces": content["pieces"][::-1]}))
    with pytest.raises(DataError, match=r"is damaged \(fingerprint \w+, not \w+\)"):
        load_tokenizer(tmp_path)
    path.write_text(json.dumps({**content, "kind": "charakter"}))
    with pytest.raises(ConfigError, match=r"no tokenizer is called 'charakter'; did you mean 'character'\?"):
        load_tokenizer(tmp_path)


def test_most_frequent_settles_ties_by_character():
    assert most_frequent({"b": 2, "a": 2, "c": 9, "d": 1}, 3) == ["c", "a", "b"]


def test_the_base_classes_do_nothing_themselves(tmp_path):
    assert TokenizerConfig().known_vocab_size() is None
    assert TokenizerConfig.versions() == {}
    with pytest.raises(TypeError, match="must define train"):
        TokenizerConfig().train([])
    with pytest.raises(TypeError, match="must define restore"):
        TokenizerConfig.restore([], tmp_path)
    with pytest.raises(TypeError, match="must define _spell"):
        Tokenizer([]).encode("a")
