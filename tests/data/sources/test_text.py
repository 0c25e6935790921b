"""Preparing a dataset: split, cached, repeatable, and plain about what it lacks."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jaxgpt.config import content_hash, decode, encode, read_yaml
from jaxgpt.data.corpora.sotu import SotuConfig
from jaxgpt.data.corpora.text import TextConfig
from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.sources import text as text_module
from jaxgpt.data.sources.text import TextDataConfig, split_documents
from jaxgpt.data.tokenizers.byte import ByteConfig
from jaxgpt.data.tokenizers.character import CharacterConfig
from jaxgpt.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[3] / "configs" / "data"


def config_of(folder, **fields) -> TextDataConfig:
    return TextDataConfig(**{"corpus": TextConfig(path=str(folder)), "tokenizer": CharacterConfig(), **fields})


def contents(dataset) -> list[tuple[str, str]]:
    return [
        (name, dataset.tokenizer.decode(split.document(number)))
        for split in (dataset.train, dataset.validation)
        for number, name in enumerate(split.names)
    ]


def test_every_document_is_in_one_part_as_it_was(folder, texts):
    dataset = config_of(folder).prepare()
    assert sorted(contents(dataset)) == [(f"{number:02d}.txt", text) for number, text in enumerate(texts)]
    assert (dataset.train.num_documents, dataset.validation.num_documents) == (11, 1)
    assert (dataset.train.name, dataset.validation.name) == ("train", "validation")


def test_a_corpus_with_a_validation_set_of_its_own_is_split_by_it(folder, tmp_path, texts):
    held = tmp_path / "held"
    held.mkdir()
    for name in ("a.txt", "b.txt"):
        (held / name).write_text(f"{name} of the validation set, with an Ω")
    corpus = TextConfig(path=str(folder), validation_path=str(held))
    dataset = TextDataConfig(corpus=corpus, tokenizer=CharacterConfig(), validation_fraction=0.9).prepare()
    assert dataset.train.num_documents == len(texts)
    assert dataset.validation.names == ("validation/a.txt", "validation/b.txt")
    assert "Ω" not in dataset.tokenizer.pieces


def test_a_tuning_split_is_taken_from_the_training_documents_alone(folder):
    whole, tuning = config_of(folder).prepare(), config_of(folder).for_tuning(0.3).prepare()
    assert not set(whole.validation.names) & {*tuning.train.names, *tuning.validation.names}
    assert {*tuning.train.names, *tuning.validation.names} == set(whole.train.names)
    assert (tuning.train.num_documents, tuning.validation.num_documents) == (8, 3)
    assert tuning.fingerprint != whole.fingerprint
    assert config_of(folder).prepare().fingerprint == whole.fingerprint
    assert content_hash(config_of(folder).for_tuning(0.0)) == content_hash(config_of(folder))
    with pytest.raises(DataError, match=r"1 document\(s\) are left to tune on"):
        config_of(folder, validation_fraction=0.95).for_tuning(0.3).prepare()
    with pytest.raises(ConfigError, match="tuning_fraction: must be at least 0 and below 1"):
        decode(DataConfig, {"type": "text", "tuning_fraction": 1.5})


def test_the_tokenizer_never_sees_validation_text(folder):
    held_out = config_of(folder).prepare().validation.names[0]
    with (folder / held_out).open("a") as file:
        file.write("Ω")
    dataset = config_of(folder).prepare()
    assert dataset.validation.names == (held_out,)
    assert "Ω" not in dataset.tokenizer.pieces
    assert dataset.tokenizer.decode(dataset.validation.document(0)).endswith("Ω")


def test_is_prepared_once_and_again_when_anything_changes(folder, monkeypatch):
    built = []
    build = text_module._build
    monkeypatch.setattr(text_module, "_build", lambda *arguments: built.append(1) or build(*arguments))
    first, again = config_of(folder).prepare(), config_of(folder, sequence_length=7, packing="documents").prepare()
    assert len(built) == 1
    assert first.fingerprint == again.fingerprint
    np.testing.assert_array_equal(first.train.tokens, again.train.tokens)
    others = [
        config_of(folder, split_seed=1).prepare(),
        config_of(folder, validation_fraction=0.5).prepare(),
        config_of(folder, tokenizer=ByteConfig()).prepare(),
    ]
    (folder / "00.txt").write_text("changed")
    others.append(config_of(folder).prepare())
    assert len(built) == 5
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert others[0].corpus_fingerprint == first.corpus_fingerprint != others[-1].corpus_fingerprint


def test_the_same_text_elsewhere_gives_the_same_fingerprint(folder, tmp_path):
    here = config_of(folder).prepare(tmp_path / "one")
    moved = folder.rename(tmp_path / "elsewhere")
    there = config_of(moved).prepare(tmp_path / "two")
    assert here.fingerprint == there.fingerprint
    assert here.tokenizer.fingerprint == there.tokenizer.fingerprint


def test_what_was_prepared_is_recorded(folder, cache):
    dataset = config_of(folder).prepare()
    [path] = cache.glob("data/*/dataset.json")
    about = json.loads(path.read_text())
    assert about["corpus"] == {**encode(TextConfig(path=str(folder))), "fingerprint": dataset.corpus_fingerprint}
    assert about["tokenizer"]["fingerprint"] == dataset.tokenizer.fingerprint


@pytest.mark.parametrize("name", ["train.tokens", "validation.offsets", "tokenizer/tokenizer.json", "dataset.json"])
def test_a_damaged_cache_is_built_again(folder, cache, name):
    before = contents(config_of(folder).prepare())
    [path] = cache.glob(f"data/*/{name}")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x5A
    path.write_bytes(raw)
    assert contents(config_of(folder).prepare()) == before


def test_several_at_once(folder, cache):
    with ThreadPoolExecutor(4) as pool:
        datasets = list(pool.map(TextDataConfig.prepare, [config_of(folder)] * 4))
    assert len({dataset.fingerprint for dataset in datasets}) == 1
    assert len(list(cache.glob("data/*/dataset.json"))) == 1


def test_warm_start_is_quick_and_reads_no_text(monkeypatch):
    config = TextDataConfig(tokenizer=ByteConfig())
    cold = config.prepare()
    monkeypatch.setattr(SotuConfig, "documents", lambda self: pytest.fail("read the text again"))
    started = time.perf_counter()
    warm = config.prepare()
    assert time.perf_counter() - started < 1  # 0.05 s; the machine may be busy
    assert warm.fingerprint == cold.fingerprint
    assert warm.train.num_tokens + warm.validation.num_tokens > 12_000_000


def test_one_document_cannot_be_split_but_can_be_cut(folder, texts):
    lines = "\n".join(texts)
    (folder / "book.txt").write_text(lines)
    path = str(folder / "book.txt")
    message = r"^data\.corpus: 1 document\(s\), but one .*; add files, or .*data\.corpus\.document_characters=20000$"
    with pytest.raises(DataError, match=message):
        config_of(path).prepare()
    dataset = config_of(path, corpus=TextConfig(path=path, document_characters=1000)).prepare()
    assert "".join(text for _, text in sorted(contents(dataset))) == lines


def test_split_is_seeded_never_empty_and_keeps_its_place():
    names = [f"document {number}" for number in range(100)]
    held = split_documents(names, 0.1, 0)
    assert sum(held) == 10
    assert held == split_documents(names, 0.1, 0) != split_documents(names, 0.1, 1)
    assert sum(split_documents(names[:2], 0.01, 0)) == 1
    assert sum(split_documents(names[:2], 0.99, 0)) == 1
    more = split_documents([*names, "another"], 0.1, 0)
    assert sum(before != after for before, after in zip(held, more, strict=False)) <= 1
    by_name = dict(zip(names, held, strict=True))
    assert split_documents(names[::-1], 0.1, 0) == [by_name[name] for name in names[::-1]]
    with pytest.raises(ValueError, match="fewer than two"):
        split_documents(["one"], 0.1, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sequence_length": 0}, "data: sequence_length: must be at least 1, got 0"),
        ({"validation_fraction": 0.0}, "data: validation_fraction: must lie between 0 and 1, got 0.0"),
        ({"validation_fraction": 1.0}, "data: validation_fraction: must lie between 0 and 1, got 1.0"),
        ({"packing": "window"}, "data.packing: 'window' is not possible; did you mean 'windows'?"),
        ({"corpus": "sotus"}, "data.corpus.type: no corpus is called 'sotus'; did you mean 'sotu'?"),
        ({"tokenizer": {"type": "bpe", "vocab_size": 3}}, "data.tokenizer: vocab_size: must be at least 258"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ConfigError) as caught:
        decode(DataConfig, {"type": "text", **fields}, "data")
    assert str(caught.value).startswith(message)


def test_packing_is_checked_from_python_too():
    with pytest.raises(ValueError, match="packing: must be windows or documents, got 'rows'"):
        TextDataConfig(packing="rows")


def test_the_size_of_the_vocabulary_may_be_known_before():
    assert TextDataConfig().known_vocab_size() == 1024
    assert TextDataConfig(tokenizer=ByteConfig()).known_vocab_size() == 257
    assert TextDataConfig(tokenizer=CharacterConfig()).known_vocab_size() is None


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_that_come_along_are_valid(path):
    raw = read_yaml(path)
    assert list(raw) == ["data"]
    config = decode(DataConfig, {"type": "text", **raw["data"]}, "data")
    assert decode(DataConfig, encode(config)) == config
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert all(any(word in line for line in header) for word in ("command:", "time:", "expected:"))
