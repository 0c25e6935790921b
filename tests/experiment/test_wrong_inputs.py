"""What a user can get wrong on the command line: one clear line that names the thing, its place and the way out."""

from pathlib import Path

import pytest

from jaxgpt.experiment.cli import main

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the quick brown fox jumps over the lazy dog and runs away. "


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(tmp_path, capsys):
    """Run the main experiment with wrong settings; (exit code, the one line on standard error)."""

    def call(*settings, runs_dir=tmp_path / "runs", options=()):
        arguments = ["--exp", "rope_vs_alibi", "--scale", "smoke", "--runs-dir", str(runs_dir), *options]
        code = main([*arguments, *(["--set", *settings] if settings else [])], ROOT / "experiments", ROOT / "configs")
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return code, lines[0]

    return call


def corpus(folder, *texts):
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    return ("data.corpus.type=text", f"data.corpus.path={folder}")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model.num_layer=3", ["model.num_layer", "did you mean 'num_layers'", "there are:"]),
        ("model.norm.type=rmsnrm", ["model.norm.type", "rmsnrm", "did you mean 'rmsnorm'", "layernorm"]),
        ("model.num_heads=3", ["model", "num_heads 3", "width 32", "divisor"]),
        ("model.width=66", ["position.fraction", "head width 33", "fraction="]),
        ("train.steps=many", ["train.steps", "a whole number", "'many'"]),
        ("train.learning_rate=null", ["train.learning_rate", "a number", "nothing"]),
        ("data.tokenizer.type=bite", ["data.tokenizer.type", "did you mean 'byte'"]),
        ("train.steps", ["--set 'train.steps'", "PATH=VALUE"]),
    ],
)
def test_a_wrong_configuration_is_told_in_one_line(run, setting, expected):
    code, line = run(setting)
    assert code == 2
    for part in expected:
        assert part in line


def test_unknown_experiment_and_scale(run, capsys):
    folders = (ROOT / "experiments", ROOT / "configs")
    assert main(["--exp", "rope_vs_alib"], *folders) == 2
    assert "did you mean 'rope_vs_alibi'" in capsys.readouterr().err
    assert main(["--exp", "rope_vs_alibi", "--scale", "laptp"], *folders) == 2
    assert "did you mean 'laptop'" in capsys.readouterr().err


def test_missing_file(run, tmp_path):
    code, line = run("data.corpus.type=text", f"data.corpus.path={tmp_path / 'nowhere'}")
    assert code == 1
    assert str(tmp_path / "nowhere") in line


def test_empty_corpus(run, tmp_path):
    code, line = run(*corpus(tmp_path / "empty"))
    assert code == 1
    assert str(tmp_path / "empty") in line


def test_documents_too_short_for_the_longest_context(run, tmp_path):
    longest = "evaluate.protocols.fixed_target.multiples=[0.25, 1, 16]"
    code, line = run(*corpus(tmp_path / "short", *[WORDS] * 40), longest)
    assert code == 1
    assert "513 tokens" in line  # 16 L + 1 at L = 32
    assert "data.sequence_length" in line


def test_unwritable_runs_folder(run, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    code, line = run(*corpus(tmp_path / "long", *[WORDS * 100] * 4), runs_dir=blocked / "runs")
    assert code == 1
    assert str(blocked / "runs") in line
    assert "--runs-dir" in line
