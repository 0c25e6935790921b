"""A cache of its own for every test, and small texts to learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

LINES = [
    "The state of the union is strong, and the people of this nation are strong.",
    "We hold that the work of government is the work of the people, and not of a few.",
    "In the year past, the revenue of the nation has grown; the debts of the nation have been paid.",
    "Let us now turn to the tasks before us:\n\t- peace,\n\t- justice,\n\t- the common good.",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, in force for the test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("JAXGPT_CACHE", str(folder))
    return folder


@pytest.fixture
def texts() -> list[str]:
    """Twelve short documents, each different."""
    return [f"{number}. " + " ".join(LINES[number % 4 :] + LINES[: number % 4]) * 2 for number in range(12)]


@pytest.fixture
def folder(tmp_path: Path, texts: list[str]) -> Path:
    """The twelve documents as .txt files."""
    place = tmp_path / "texts"
    place.mkdir()
    for number, text in enumerate(texts):
        (place / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    return place
