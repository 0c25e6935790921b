"""A model of ours as lm-evaluation-harness wants one (https://github.com/EleutherAI/lm-evaluation-harness)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # pyright: ignore[reportMissingImports]
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxgpt.errors import ConfigError
from jaxgpt.generate.decode import stream
from jaxgpt.generate.filters import Sampling
from jaxgpt.generate.text import Source
from jaxgpt.harness.scoring import Pair, score

NEW_TOKENS = 256  # where a task does not say
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")


class HarnessModel(TemplateLM):
    """Answers what tasks ask: log-likelihoods of continuations and of whole texts, and greedy or sampled text.

    source: a model with its tokenizer, of `jaxgpt.generate.text.load`.
    max_length: tokens that the model reads at once; of longer contexts the end is kept.
    batch_size: rows computed together.
    """

    def __init__(self, source: Source, max_length: int, batch_size: int = 8, seed: int = 0):
        super().__init__()
        self.source, self.max_length, self.batch_size, self.seed = source, max_length, batch_size, seed

    @property
    def eot_token_id(self) -> int:
        return self.source.stop[0]

    @property
    def prefix_token_id(self) -> int:
        return self.source.start[0] if self.source.start else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        return self.source.tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The tokens of a text, behind those that begin every text unless told not to."""
        return (
            self.source.tokenizer.encode(string).tolist() if add_special_tokens is False else self.source.encode(string)
        )

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        return self._scores([Pair(context, continuation) for _, context, continuation in requests], disable_tqdm)

    def _scores(self, pairs: Sequence[Pair], quiet: bool) -> list[tuple[float, bool]]:
        with _progress("scoring", len(pairs), quiet) as advance:
            found = score(self.source.model, pairs, self.max_length, self.batch_size, advance)
        return [(one.log_probability, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts: each token once, in windows as long as the model reads, the last one with a full context."""
        pairs, counts = [], []
        for request in requests:
            (text,) = _arguments(request)
            tokens = self.tok_encode(text, add_special_tokens=False)
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1)
            found = [Pair(*make_disjoint_window(window)) for window in windows]
            pairs += found
            counts.append(len(found))
        each = iter(self._scores(pairs, disable_tqdm))
        return [sum(next(each)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts up to the first of the stop texts that a task names, or an end token."""
        texts = [""] * len(requests)
        asked = [_arguments(request) for request in requests]
        groups: dict[str, list[int]] = {}
        for number, (_, settings) in enumerate(asked):
            groups.setdefault(json.dumps(settings, sort_keys=True), []).append(number)
        seed = self.seed
        with _progress("writing", len(requests), disable_tqdm) as advance:
            for numbers in groups.values():
                numbers.sort(key=lambda number: len(asked[number][0]))
                for at in range(0, len(numbers), self.batch_size):
                    batch = numbers[at : at + self.batch_size]
                    prompts = [asked[number][0] for number in batch]
                    for number, text in zip(batch, self._write(prompts, asked[batch[0]][1], seed), strict=True):
                        texts[number] = text
                    seed += 1  # a question asked again is to have another answer
                    advance(len(batch))
        return texts

    def _write(self, prompts: Sequence[str], settings: dict[str, Any], seed: int) -> list[str]:
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        new = int(settings.get("max_gen_toks", NEW_TOKENS))
        room = self.max_length - new
        if room < 1:
            raise ConfigError(
                f"--max-length {self.max_length}: a task writes up to {new} tokens, which leaves no room for a prompt"
            )
        tokens = [self.source.encode(prompt)[-room:] for prompt in prompts]
        rows: list[list[int]] = [[] for _ in prompts]
        texts = [""] * len(prompts)
        how = {"stop": self.source.stop, "seed": seed}
        for parts in stream(self.source.model, tokens, new, _sampling(settings), **how):
            for number, part in enumerate(parts):
                rows[number] += part
                texts[number] = self.source.continuation(prompts[number], rows[number])
            ended = [any(stop in text for stop in stops) for text in texts]
            if all(end or (row[-1:] and row[-1] in self.source.stop) for end, row in zip(ended, rows, strict=True)):
                break
        return [_until(text, stops) for text in texts]


def _arguments(request: Instance) -> tuple[Any, ...]:
    """What a request is about, by its kind: a text, or a text and settings."""
    return request.args


def _sampling(settings: dict[str, Any]) -> Sampling:
    """What a task says of sampling; greedy unless it asks for samples."""
    if not settings.get("do_sample"):
        return Sampling(temperature=0.0)
    given = {name: settings[name] for name in _SAMPLING if settings.get(name) is not None}
    if given.get("top_k", 1) < 1:  # none, in transformers
        del given["top_k"]
    try:
        return Sampling(**given)
    except ValueError as error:
        raise ConfigError(f"a task's generation_kwargs: {error}") from None


def _until(text: str, stops: Sequence[str]) -> str:
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


@contextmanager
def _progress(words: str, total: int, quiet: bool) -> Iterator[Any]:
    """A bar on standard error; what is yielded is told how many more are done."""
    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task(words, total=total)
        yield lambda count: bar.advance(task, count)
