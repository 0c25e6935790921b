"""Text from a run or from a published checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxgpt.convert.folder import has_tokenizer, is_checkpoint, read_tokenizer, special_tokens
from jaxgpt.convert.pretrained import load_pretrained, read_config
from jaxgpt.data.tokenizers.base import Tokenizer
from jaxgpt.data.tokenizers.numbers import NumberTokenizer
from jaxgpt.errors import ConfigError, UserError
from jaxgpt.generate.decode import CHUNK, stream
from jaxgpt.generate.filters import Sampling
from jaxgpt.models.base import Model


@dataclasses.dataclass(frozen=True)
class Source:
    """A model with what turns its tokens into text.

    start: tokens before every prompt. stop: tokens that end a text.
    """

    model: Model
    tokenizer: Tokenizer
    start: tuple[int, ...]
    stop: tuple[int, ...]

    def encode(self, prompt: str) -> list[int]:
        return [*self.start, *self.tokenizer.encode(prompt).tolist()]

    def continuation(self, prompt: str, tokens: Sequence[int]) -> str:
        """The text of new tokens behind a prompt. Both are decoded together: alone, some tokenizers lose a space. What
        the tokenizer does not know (models may have more logits than it has tokens) and end tokens are no text."""
        before = self.tokenizer.encode(prompt).tolist()
        known = [token for token in tokens if token < self.tokenizer.vocab_size and token not in self.stop]
        return self.tokenizer.decode([*before, *known])[len(self.tokenizer.decode(before)) :]


def load(folder: Path, checkpoint: int | str = "last") -> Source:
    """What generates in `folder`: a run's weights, or a checkpoint of transformers with its tokenizer. Without one, its
    texts are the numbers of tokens.

    checkpoint: of a run: `last`, `best` or a step, see `load_model`. Raises UserError where it is neither.
    """
    if (folder / "config.yaml").exists():
        from jaxgpt.train.environment import prepare_jax
        from jaxgpt.train.run import read_config as read_run
        from jaxgpt.train.start import load_model

        config = read_run(folder)
        prepare_jax(config.threads, config.train.deterministic)
        model, tokenizer = load_model(folder, checkpoint=checkpoint)
        return Source(model, tokenizer, (tokenizer.separator,), tokenizer.ends)
    if is_checkpoint(folder):
        if checkpoint != "last":
            raise UserError(f"{folder}: is a checkpoint of transformers, which holds one model; leave --checkpoint out")
        return _of_checkpoint(folder)
    raise UserError(f"{folder}: is neither a run (no config.yaml) nor a checkpoint of transformers (no config.json)")


def _of_checkpoint(folder: Path) -> Source:
    size = read_config(folder).vocab_size  # says what cannot be loaded before anything else is asked for
    assert size is not None
    if has_tokenizer(folder):
        found = read_tokenizer(folder)
        tokenizer, begin, ends = found.tokenizer, found.begin, found.ends
    else:
        _, ends = special_tokens(folder)
        tokenizer, begin, ends = NumberTokenizer(size), (), tuple(token for token in ends if token < size)
    model, _ = load_pretrained(folder)
    return Source(model, tokenizer, begin, ends)


def write(
    source: Source,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling,
    *,
    stop: Sequence[str] = (),
    seed: int = 0,
    chunk: int = CHUNK,
) -> Iterator[str]:
    """The text that follows `prompt`, piece by piece, up to the first of the `stop` texts (left out) or an end token.

    A character is given when all of its bytes are there, and what may be the beginning of a stop text when it is not.
    """
    if any(not one for one in stop):
        raise ConfigError("--stop: an empty text would stop everything")
    tokens: list[int] = []
    given = ""
    how = {"stop": source.stop, "seed": seed, "chunk": chunk}
    for (new,) in stream(source.model, [source.encode(prompt)], max_new_tokens, sampling, **how):
        ended = bool(new) and new[-1] in source.stop
        tokens += new[:-1] if ended else new
        text = source.continuation(prompt, tokens)
        at = min((text.find(one) for one in stop if one in text), default=None)
        if at is not None:
            yield text[len(given) : at]
            return
        last = ended or len(tokens) == max_new_tokens
        sure = len(text) if last else _sure(text, stop)
        if sure > len(given):
            yield text[len(given) : sure]
            given = text[:sure]


def _sure(text: str, stop: Sequence[str]) -> int:
    """How much of a text will stay as it is whatever follows."""
    sure = len(text.rstrip("\ufffd"))
    for one in stop:
        for size in range(min(len(one) - 1, sure), 0, -1):
            if text[:sure].endswith(one[:size]):
                sure -= size
                break
    return sure
