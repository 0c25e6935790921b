"""The cache: built once, whole or not at all, checked at every use."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from jaxgpt.data import cache as cache_module
from jaxgpt.data.cache import FileDigests, cache_directory, cached
from jaxgpt.errors import DataError


def settle(path: Path) -> None:
    """Make a file look as if it had last been changed a minute ago."""
    os.utime(path, ns=(time.time_ns() - 60 * 10**9,) * 2)


def builder(calls: list, text: str = "content"):
    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(text)

    return build


def ask(folder: Path, calls: list, **kwargs) -> Path:
    return cached(folder, "entry", builder(calls, **kwargs), FileDigests(folder))


def test_the_folder_is_given_or_set_or_in_the_home(cache, tmp_path, monkeypatch):
    assert cache_directory() == cache
    assert cache_directory(tmp_path) == tmp_path
    monkeypatch.delenv("JAXGPT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "jaxgpt"


def test_builds_once(cache):
    calls = []
    first, second = ask(cache, calls), ask(cache, calls)
    assert first == second == cache / "entry"
    assert (first / "sub" / "a.txt").read_text() == "content"
    assert len(calls) == 1


def damage_byte(entry):
    (entry / "sub" / "a.txt").write_text("contemt")


def damage_length(entry):
    (entry / "sub" / "a.txt").write_text("cont")


def damage_missing(entry):
    (entry / "sub" / "a.txt").unlink()


def damage_index(entry):
    (entry / "index.json").write_text("{")


def damage_index_kind(entry):
    (entry / "index.json").write_text("[1]")


@pytest.mark.parametrize("damage", [damage_byte, damage_length, damage_missing, damage_index, damage_index_kind])
def test_damage_is_seen_and_mended(cache, damage):
    calls = []
    damage(ask(cache, calls))
    assert (ask(cache, calls) / "sub" / "a.txt").read_text() == "content"
    assert len(calls) == 2
    ask(cache, calls)
    assert len(calls) == 2


def test_a_changed_large_file_is_seen_by_its_times(cache, monkeypatch):
    monkeypatch.setattr(cache_module, "_ALWAYS_HASHED", 0)
    calls = []
    damage_byte(ask(cache, calls))
    assert (ask(cache, calls) / "sub" / "a.txt").read_text() == "content"
    assert len(calls) == 2


def test_what_a_killed_or_failed_builder_left_is_no_entry(cache):
    def fail(folder):
        (folder / "half").write_text("half")
        raise DataError("no text")

    with pytest.raises(DataError, match="no text"):
        cached(cache, "entry", fail, FileDigests(cache))
    assert not (cache / "entry").exists()
    entry = ask(cache, [])
    assert sorted(path.name for path in entry.iterdir()) == ["index.json", "sub"]


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cache folder .*file/data cannot be written \(Not a directory\); set JAXGPT_"):
        ask(tmp_path / "file" / "data", [])


def _build_slowly(folder: Path) -> None:
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(0.3)


def _ask_in_process(folder: Path, queue) -> None:
    entry = cached(folder, "entry", _build_slowly, FileDigests(folder))
    queue.put((entry / "pid").read_text())


def test_several_processes_share_one_building(cache):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_ask_in_process, args=(cache, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    builders = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(builders) == 1


def test_unchanged_files_are_not_read_again(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_SETTLED", 0)
    path = tmp_path / "a.txt"
    path.write_text("one")
    digests = FileDigests(cache)
    first = digests(path)
    digests.save()
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "file_digest", lambda path: pytest.fail("read again"))
        assert FileDigests(cache)(path) == first
    path.write_text("two")
    assert FileDigests(cache)(path) != first


def test_a_file_changed_just_now_is_not_trusted(cache, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    settle(path)  # the time of the change of its status still tells
    digests = FileDigests(cache)
    digests(path)
    digests.save()
    assert not (cache / "file-digests.json").exists()


@pytest.mark.parametrize("content", ["{", "[1, 2]", json.dumps({"x": 3})])
def test_a_damaged_memory_only_costs_time(cache, tmp_path, content):
    cache.mkdir()
    (cache / "file-digests.json").write_text(content)
    (tmp_path / "x").write_text("one")
    assert len(FileDigests(cache)(tmp_path / "x")) == 64


def test_a_missing_file_is_named(cache, tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read \(No such file"):
        FileDigests(cache)(tmp_path / "gone.txt")
