"""What is drawn of a model, from its own forward pass; and the command line."""

import jax
import numpy as np
import pytest

from jaxgpt.data.tokenizers.byte import ByteTokenizer
from jaxgpt.errors import ConfigError
from jaxgpt.generate.text import Source
from jaxgpt.inspect.__main__ import main
from jaxgpt.inspect.look import like, look, near, shown
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.feedforward.moe import MixtureConfig

SMALL = DecoderConfig(vocab_size=257, train_length=16, num_layers=3, num_heads=2, width=16, init_std=0.5)
EXPERTS = DecoderConfig(
    vocab_size=260,
    train_length=16,
    num_layers=3,
    num_heads=2,
    width=16,
    feedforward=MixtureConfig(experts=4, expert=GatedConfig(hidden=8)),
)


def source(config):
    model = jax.jit(config.make)(jax.random.key(0))
    return Source(model, ByteTokenizer(()), (0,), (0,))


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def test_attention_and_lens_are_those_of_the_forward_pass():
    made = source(SMALL)
    looked = look(made, "abc", layers=[2, 0], heads=[1])
    assert set(looked.figures) == {"attention", "lens"}
    drawn = panels(looked.figures["attention"])
    assert [axes.get_title() for axes in drawn] == ["layer 2, head 1", "layer 0, head 1"]
    tokens = np.array([made.encode("abc")])
    output = made.model(tokens, capture=("attention",))
    np.testing.assert_allclose(drawn[0].images[0].get_array(), output.aux["attention"][2, 0, 1], rtol=1e-5)
    assert [tick.get_text() for tick in drawn[1].get_yticklabels()] == ["<start>", "a", "b", "c"]
    chances = np.asarray(jax.nn.softmax(output.logits[0], axis=-1))
    lens = looked.figures["lens"].axes[0]
    np.testing.assert_allclose(lens.images[0].get_array()[-1], chances.max(-1), rtol=1e-4)
    best = int(chances[-1].argmax())
    assert looked.likeliest[0] == (shown(made.tokenizer, best), pytest.approx(chances[-1, best], rel=1e-4))
    assert lens.texts[-1].get_text() == shown(made.tokenizer, best)


def test_routers_are_drawn():
    looked = look(source(EXPERTS), "abcd")
    drawn = panels(looked.figures["router"])
    assert [axes.get_title() for axes in drawn] == ["layer 0", "layer 1", "layer 2"]
    chances = drawn[0].images[0].get_array()
    assert chances.shape == (5, 4)
    np.testing.assert_allclose(chances.sum(-1), 1.0, rtol=1e-5)


def test_neighbours_have_names():
    made = source(SMALL)
    found = near(made, "a", count=3)
    assert len(found) == 3
    assert "a" not in [name for name, _ in found]
    assert len(like(made, "a", "b", "c", count=4)) == 4


def test_tokens_are_shown_by_visible_signs():
    tokenizer = ByteTokenizer(())
    signs = [shown(tokenizer, int(token)) for token in tokenizer.encode(" \n\t$x")]
    assert signs == ["·", "⏎", "⇥", "$", "x"]
    assert shown(tokenizer, 0) == "<start>"
    assert shown(tokenizer, 300) == "<300>"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "x" * 200}, "--prompt: has 201 tokens, and from 1 to 96"),
        ({"text": "x", "layers": [3]}, "--layers: 3 is not there, they count from 0 to 2"),
        ({"text": "x", "heads": [-1]}, "--heads: -1 is not there"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        look(source(SMALL), **fields)


def test_the_command_line(sentence_run, tmp_path, capsys):
    out = tmp_path / "pictures"
    options = ["--prompt", "one two", "--out", str(out), "--near", "o", "--analogy", "o", "n", "e"]
    assert main([str(sentence_run), *options]) == 0
    printed = capsys.readouterr().out
    assert "what comes next" in printed
    assert "near o" in printed
    assert "to e as n is to o" in printed
    assert sorted(path.name for path in out.iterdir()) == ["attention.png", "lens.png"]
    (tmp_path / "file").write_text("")
    assert main([str(sentence_run), "--prompt", "one", "--out", str(tmp_path / "file" / "x")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(sentence_run)])
