"""Text from a run or from a published checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxgpt.data.tokenizers.base import Tokenizer
from jaxgpt.data.tokenizers.pretrained import PretrainedTokenizer, read_text
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


def load(folder: Path) -> Source:
    """What generates in `folder`: a run's newest weights, or a checkpoint of transformers with its tokenizer.

    Raises UserError where it is neither.
    """
    if (folder / "config.yaml").exists():
        from jaxgpt.train.environment import prepare_jax
        from jaxgpt.train.run import load_model, read_config

        prepare_jax(read_config(folder).threads)
        model, tokenizer = load_model(folder)
        return Source(model, tokenizer, (tokenizer.separator,), (tokenizer.separator,))
    if (folder / "config.json").exists():
        from jaxgpt.convert import load_pretrained

        model, _ = load_pretrained(folder)
        begin, ends = _special(folder)
        tokenizer = PretrainedTokenizer(read_text(folder), _end_of(folder), ends[0] if ends else None)
        starts = (begin,) if begin is not None and _adds_start(tokenizer, begin) else ()
        return Source(model, tokenizer, starts, ends or (tokenizer.separator,))
    raise UserError(f"{folder}: is neither a run (no config.yaml) nor a checkpoint of transformers (no config.json)")


def _special(folder: Path) -> tuple[int | None, tuple[int, ...]]:
    """The token that begins a text and those that end one, from the settings of the model and of its generation."""
    begin, ends = None, []
    for name in ("config.json", "generation_config.json"):
        try:
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        begin = settings.get("bos_token_id") if begin is None else begin
        found = settings.get("eos_token_id")
        ends += found if isinstance(found, list) else [] if found is None else [found]
    return begin, tuple(dict.fromkeys(ends))


def _end_of(folder: Path) -> str | None:
    """The token that ends a text, as the tokenizer's own settings name it."""
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError):
        return None
    return named.get("content") if isinstance(named, dict) else named


def _adds_start(tokenizer: PretrainedTokenizer, begin: int) -> bool:
    """Whether the tokenizer puts its first token before a text of its own accord."""
    return tokenizer.with_special("a")[:1] == [begin]


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
