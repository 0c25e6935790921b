"""Text from a run, and the command line."""

import json
import shutil

import pytest

from jaxgpt.convert import load_pretrained
from jaxgpt.data.tokenizers.byte import ByteTokenizer
from jaxgpt.errors import ConfigError, UserError
from jaxgpt.generate.__main__ import main
from jaxgpt.generate.decode import generate
from jaxgpt.generate.filters import Sampling
from jaxgpt.generate.text import Source, _sure, load, write

GREEDY = Sampling(temperature=0)


def test_a_run_goes_on_with_what_it_learned(sentence_run):
    source = load(sentence_run)
    text = "".join(write(source, "one two", 40, GREEDY))
    assert text.startswith(" three four five six. one two thr")
    assert source.start == source.stop == (0,)


def test_it_stops_before_a_text(sentence_run):
    parts = list(write(load(sentence_run), "one", 60, GREEDY, stop=["five", "xyz"], chunk=3))
    assert "".join(parts) == " two three four "
    assert len(parts) > 1


def test_what_may_be_the_beginning_of_a_stop_text_waits():
    assert _sure("one fi", ["five"]) == 4
    assert _sure("one", ["five", "exit"]) == 2
    assert _sure("caf\ufffd", []) == 3
    with pytest.raises(ConfigError, match="--stop"):
        next(write(Source(None, ByteTokenizer(()), (), ()), "a", 1, GREEDY, stop=[""]))


def test_the_command_line(sentence_run, tmp_path, capsys):
    assert main([str(sentence_run), "--prompt", "one two", "--max-new-tokens", "20", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "one two three four five six\n"
    assert main([str(sentence_run), "--prompt", "one two", "--max-new-tokens", "14", "--beams", "2"]) == 0
    assert "one two three four fi" in capsys.readouterr().out
    options = ["--draft", str(sentence_run), "--temperature", "0", "--max-new-tokens", "12"]
    assert main([str(sentence_run), "--prompt", "one two", *options]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("one two three four")
    assert "proposals accepted" in told.err
    assert main([str(sentence_run), "--prompt", "one two", "--draft", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("neither a run")) == ("", 1), "nothing is begun"


def test_a_checkpoint_without_a_tokenizer_goes_on_with_numbers(llama_checkpoint, capsys):
    model, _ = load_pretrained(llama_checkpoint)
    wanted = generate(model, [[3, 0, 256]], 9)[0]
    options = ["--temperature", "0", "--max-new-tokens", "9"]
    assert main([str(llama_checkpoint), "--prompt", "3 0 256", *options]) == 0
    assert capsys.readouterr().out.split() == ["3", "0", "256", *map(str, wanted)], "no number is hidden"
    assert main([str(llama_checkpoint), "--prompt", "a word", *options]) == 1
    assert "'a' is no token: there is no tokenizer for texts here, write numbers below 257" in capsys.readouterr().err


def test_numbers_end_where_the_settings_say(llama_checkpoint, tmp_path):
    """As far as the model has such tokens."""
    folder = shutil.copytree(llama_checkpoint, tmp_path / "llama")
    first, second, *_ = generate(load_pretrained(folder)[0], [[3, 14]], 9)[0]
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "eos_token_id": [second, 50256]}))
    source = load(folder)
    assert (source.start, source.stop) == ((), (second,))
    assert "".join(write(source, "3 14", 9, GREEDY)) == ("" if first == second else f" {first}")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--top-p", "2"], 2, "error: --top-p: 2.0 must be greater than 0 and at most 1"),
        (["--beams", "0"], 2, "error: --beams: 0 must be at least 1"),
        (["--beams", "2", "--stop", "x"], 2, "error: --stop: works without --beams"),
        (["--beams", "2", "--temperature", "0.5"], 2, "error: --beams: takes no --draft and no options of sampling"),
        (["--max-new-tokens", "0"], 2, "error: max_new_tokens: 0 must be at least 1"),
    ],
)
def test_mistakes_on_the_command_line(sentence_run, capsys, options, code, message):
    assert main([str(sentence_run), *options]) == code
    assert message in capsys.readouterr().err


def test_a_family_that_is_not_there_is_said_before_a_tokenizer_is_missed(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "lama"}')
    assert main([str(tmp_path)]) == 1
    assert "model_type 'lama' is not supported; did you mean 'llama'" in capsys.readouterr().err


def test_a_folder_that_is_neither(tmp_path, capsys):
    with pytest.raises(UserError, match=r"neither a run .* nor a checkpoint"):
        load(tmp_path)
    assert main([str(tmp_path)]) == 1
    assert "neither a run" in capsys.readouterr().err
