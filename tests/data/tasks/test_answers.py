"""The answers are right, seen by reading examples as a person would."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgpt.config import decode
from jaxgpt.data.tasks.base import TaskConfig

SEEDS = range(25)


def read(raw, length):
    """Examples as [[prompt words], [answer words], ...]."""
    task = decode(TaskConfig, raw)
    symbols = task.symbols()
    for seed in SEEDS:
        yield [[symbols[i] for i in part] for part in task.sample(np.random.default_rng(seed), length)]


@pytest.mark.parametrize("tokens", ["random", "repeated"])
def test_copy(tokens):
    for prompt, answer in read({"type": "copy", "tokens": tokens}, 9):
        assert prompt == [*answer, ">"]
        assert (len(set(answer)) == 1) == (tokens == "repeated")


def test_reverse():
    for prompt, answer in read("reverse", 9):
        assert prompt == [*answer[::-1], ">"]


@pytest.mark.parametrize("reversed_", [False, True])
@pytest.mark.parametrize("length", [1, 8])
def test_addition(reversed_, length):
    for prompt, answer in read({"type": "addition", "reversed": reversed_}, length):
        plus = prompt.index("+")
        written = (prompt[:plus], prompt[plus + 1 : -1], answer)
        a, b, total = (number[::-1] if reversed_ else number for number in written)
        assert int("".join(a)) + int("".join(b)) == int("".join(total))
        assert (len(a), len(b), len(total)) == (length, length, length + 1)


@pytest.mark.parametrize("reversed_", [False, True])
def test_addition_with_hints(reversed_):
    starts = set()
    for prompt, answer in read({"type": "addition", "reversed": reversed_, "hints": 5}, 3):
        plus = prompt.index("+")
        numbers = []
        for words in (prompt[:plus], prompt[plus + 1 : -1], answer):
            hints = [int(hint[1:]) for hint in words[::2]]
            assert hints == sorted(hints, reverse=reversed_)
            numbers.append(dict(zip(hints, map(int, words[1::2]), strict=True)))
        last = max(numbers[2])
        assert all(max(number) == last for number in numbers), "equal places have equal hints"
        starts.add(min(numbers[2]))
        a, b, total = (sum(digit * 10 ** (last - hint) for hint, digit in number.items()) for number in numbers)
        assert a + b == total
    assert starts == {0, 1}, "training on short numbers sees every hint"


def test_sorting():
    for prompt, answer in read("sorting", 9):
        assert sorted(map(int, prompt[:-1])) == list(map(int, answer))


def test_parity_and_summation():
    for prompt, answer in read("parity", 9):
        assert answer == [str(prompt.count("1") % 2)]
    for prompt, answer in read({"type": "summation", "modulus": 7}, 9):
        assert answer == [str(sum(map(int, prompt[:-1])) % 7)]


def test_induction():
    places = set()
    for prompt, answer in read("induction", 9):
        places.add(prompt.index("|"))
        assert prompt[-1] == "|"
        assert len(prompt) == 11
        assert [prompt[prompt.index("|") + 1]] == answer
    assert len(places) > 5


@pytest.mark.parametrize(
    ("raw", "pairs", "gap"),
    [("mqar", 5, 0), ({"type": "mqar", "gap": 3}, 5, 3), ({"type": "mqar", "pairs": 2}, 2, 5)],
    ids=["pairs", "pairs and gap", "length"],
)
def test_mqar(raw, pairs, gap):
    for first, *rest in read(raw, 5):
        told = dict(zip(first[: 2 * pairs : 2], first[1 : 2 * pairs : 2], strict=True))
        assert len(told) == pairs, "keys differ"
        assert first[2 * pairs : -1] == ["."] * gap
        asked = [first[-1], *(key for (key,) in rest[1::2])]
        assert sorted(asked) == sorted(told)
        assert [told[key] for key in asked] == [value for (value,) in rest[::2]]


def test_passkey():
    depths = set()
    for prompt, answer in read("passkey", 9):
        at = prompt.index("<key>")
        depths.add(at)
        assert prompt[at + 1 : at + 5] == answer
        assert prompt[-1] == "<key>"
        assert len(prompt) == 9 + 6
    assert depths > {0, 9}, "the key may come first and last"


def test_selective_copy():
    for prompt, answer in read({"type": "selective_copy", "count": 4}, 9):
        assert [word for word in prompt[:-1] if word != "."] == answer
        assert (len(prompt), len(answer)) == (10, 4)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"type": "copy", "alphabet": 1}, "alphabet: must be at least 2"),
        ({"type": "reverse", "alphabet": 1}, "alphabet: must be at least 2"),
        ({"type": "induction", "alphabet": 1}, "alphabet: must be at least 2"),
        ({"type": "selective_copy", "count": 0}, "count: must be at least 1"),
        ({"type": "addition", "hints": 1}, "hints: must be 0 or at least 2"),
        ({"type": "sorting", "numbers": 1}, "numbers: must be at least 2"),
        ({"type": "summation", "modulus": 1}, "modulus: must be at least 2"),
        ({"type": "mqar", "pairs": 65}, "pairs: must be from 1 to the 64 keys"),
        ({"type": "mqar", "pairs": 3, "gap": 2}, "gap: is the length's to say"),
        ({"type": "passkey", "digits": 0}, "digits: must be at least 1"),
    ],
)
def test_what_makes_no_task_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        decode(TaskConfig, raw)
