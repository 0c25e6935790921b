"""The tables of the fast paths, at sizes that take no time: what they hold, not how fast anything is."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark_ops
from experiments.benchmark_ops import Attention, Program, Sizes, Stepper, one_core, spread, verdict
from jaxgpt.data.corpora.text import TextConfig
from jaxgpt.data.sources.text import TextDataConfig
from jaxgpt.data.tokenizers.byte import ByteConfig


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Sizes of a few tokens, set."""
    monkeypatch.setenv("JAXGPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "text" / f"{name}.txt").write_text("one two three four five six. " * 100)
    data = TextDataConfig(corpus=TextConfig(path=str(tmp_path / "text")), tokenizer=ByteConfig())
    few = {"length": 24, "heads": 2, "head_dim": 4, "tokens": 12, "width": 8, "vocabularies": (16, 33)}
    sizes = Sizes(**few, lengths=(8, 16), drawn=512, data=data)
    monkeypatch.setattr(benchmark_ops, "SIZES", sizes)
    monkeypatch.setattr(benchmark_ops, "PIECE", 8)
    monkeypatch.setattr(benchmark_ops.ops, "BLOCK", 8)
    monkeypatch.setattr(benchmark_ops, "prepare_jax", lambda threads: None)  # the tests' pool is running already
    return sizes


def rows(text):
    """The cells of every table, without its head."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [line for line in lines if not line[-1].startswith("---") and line[-1] != "as it should"]


@pytest.mark.parametrize(
    ("part", "first"),
    [
        pytest.param("attention", ["nope", "alibi", "t5", "kerple", "fire"], marks=pytest.mark.slow),
        ("cross_entropy", ["16", "33"]),
        pytest.param(
            "dispatch",
            ["laptop, a batch of 16 x 128", "as many arrays of width 8, a batch of 1 x 8"],
            marks=pytest.mark.slow,
        ),
        ("data", ["8", "16"]),
    ],
)
def test_every_part_is_a_table(tiny, capsys, part, first):
    assert benchmark_ops.main(["--only", part, "--rounds", "1", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    found = rows(printed)
    assert [row[0] for row in found] == first
    assert len({len(row) for row in found}) == 1
    assert all(row[-1] == "yes" or row[-1].startswith("no: ") for row in found)
    assert not any("—" in cell for row in found for cell in row)
    assert printed.count("## ") == 1
    assert "Threads: 1; load of the machine before: " in printed


def test_without_times_memory_and_errors_are_told(tiny, capsys):
    assert benchmark_ops.main(["--only", "attention", "cross_entropy", "--threads", "1", "--no-times"]) == 0
    for row in rows(capsys.readouterr().out):
        assert row[1] == "—"
        assert row[-1].endswith("not measured: time")
        assert "error" not in row[-1]


@pytest.mark.parametrize("kind", Sizes().biases)
def test_the_three_forms_are_one_function(tiny, kind):
    made = Attention.draw(kind, tiny.length, tiny)
    wanted = made.naive(*made.qkv, made.encoding)
    for form in (made.blockwise, made.plain):
        np.testing.assert_allclose(form(*made.qkv, made.encoding), wanted, atol=1e-5)
    found, wanted = (made.gradient(form).run() for form in (made.plain, made.naive))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert max(made.errors()) < 1e-5


def test_an_error_is_found(tiny, monkeypatch):
    blockwise = Attention.blockwise
    monkeypatch.setattr(Attention, "blockwise", lambda *arguments: 1.01 * blockwise(*arguments))
    out, gradient = Attention.draw("alibi", tiny.length, tiny).errors()
    assert min(out, gradient) > 1e-3


def test_what_does_not_fit_is_compared_at_a_length_that_does(tiny, monkeypatch):
    sizes = dataclasses.replace(tiny, length=32, biases=("alibi",))
    fits = {32: False, 16: False, 8: True}
    asked = []

    def gradient(made, form):
        asked.append(made.length)
        return dataclasses.replace(Program.of(jnp.sin, 1.0), memory=made.length)

    monkeypatch.setattr(Attention, "gradient", gradient)
    monkeypatch.setattr(Program, "fits", lambda program: fits[program.memory])
    held, plain = benchmark_ops.fitting("alibi", sizes)
    assert (held.length, plain.memory, asked) == (8, 8, [32, 16, 8])


def test_a_program_is_compiled_once_and_says_its_memory():
    program = Program.of(lambda x: (jnp.sort(x) @ x.T).sum(), jnp.ones((64, 64)))
    assert program.run() == 64**3
    assert program.memory >= 64 * 64 * 4
    assert program.seconds() > 0
    assert program.fits()
    assert not dataclasses.replace(program, memory=2**60).fits()


def test_words():
    assert spread([], ".1f") == "—"
    assert spread([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0 to 3.0)"
    assert verdict(time=True, memory=True) == "yes"
    assert verdict(time=False, memory=True, error=False) == "no: time, error"
    assert verdict(time=None, memory=True) == "yes; not measured: time"
    assert verdict(time=None, memory=False) == "no: memory; not measured: time"


def test_turns_are_taken_in_turn():
    taken = []
    ours, plain = (Program(lambda name=name: taken.append(name), 0) for name in ("ours", "plain"))
    times = benchmark_ops.in_turns(ours, plain, 2)
    assert taken == ["ours", "plain"] * 3  # the first to warm up
    assert [len(one) for one in times] == [2, 2]
    assert benchmark_ops.in_turns(ours, plain, 0) == ([], [])


def test_a_step_moves_its_state():
    config = benchmark_ops.load_config([benchmark_ops.LAPTOP])
    model = dataclasses.replace(config.model, width=8, vocab_size=8, train_length=8, num_layers=1)
    stepper = Stepper(config, model, 1, 8)
    returned, own, done = stepper.turn()
    assert 0 < returned <= done
    assert own > 0
    assert int(stepper.state.step) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not say on which cores")
def test_on_one_core_and_back():
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_wrong_numbers_of_rounds_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark_ops.main(["--rounds", "0"])
    assert stopped.value.code == 2
    assert "at least 1" in capsys.readouterr().err
