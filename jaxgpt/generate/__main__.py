"""`python -m jaxgpt.generate FOLDER --prompt TEXT ...`: what a model makes of a text.

FOLDER is a run (`runs/.../<name>`), or a checkpoint of transformers with its tokenizer (extra `hf`). Without one, texts
are the numbers of tokens with spaces between them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxgpt.errors import ConfigError, exit_code


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m jaxgpt.generate", description="Go on with a text.")
    made.add_argument("folder", type=Path, help="a run, or a checkpoint of transformers")
    made.add_argument("--checkpoint", default="last", metavar="WHICH", help="of a run: last (default), best, or a step")
    made.add_argument("--prompt", default="", help="the text to go on with (default: none)")
    made.add_argument("--max-new-tokens", type=int, default=200, metavar="N")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated"
    )
    made.add_argument("--beams", type=int, metavar="K", help="beam search with so many beams, instead of sampling")
    made.add_argument("--length-penalty", type=float, default=1.0, help="of beam search")
    made.add_argument("--draft", type=Path, metavar="FOLDER", help="a smaller model that proposes tokens")
    made.add_argument("--proposals", type=int, default=4, metavar="N", help="of the draft, checked at a time")
    filters = made.add_argument_group("sampling, in the order in which they act")
    filters.add_argument("--repetition-penalty", type=float, metavar="R")
    filters.add_argument("--no-repeat-ngram", type=int, default=0, metavar="N")
    filters.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 is greedy")
    filters.add_argument("--top-k", type=int, metavar="K")
    for name in ("top-p", "min-p", "typical-p", "epsilon", "eta"):
        filters.add_argument(f"--{name}", type=float, metavar="P")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    from jaxgpt.generate.beam import BeamSearch, beam_search
    from jaxgpt.generate.filters import Sampling
    from jaxgpt.generate.speculative import speculate
    from jaxgpt.generate.text import load, write

    try:
        fields = [field.name for field in dataclasses.fields(Sampling)]
        sampling = Sampling(**{name: getattr(options, name) for name in fields})
        search = None if options.beams is None else BeamSearch(options.beams, options.length_penalty)
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise ConfigError(f"--{name.replace('_', '-')}:{rest}") from None
    if (options.beams or options.draft) and options.stop:
        raise ConfigError("--stop: works without --beams and --draft only")
    if options.beams and (options.draft or sampling != Sampling()):
        raise ConfigError("--beams: takes no --draft and no options of sampling; leave them out")
    source = load(options.folder, options.checkpoint)
    prompt, count = source.encode(options.prompt), options.max_new_tokens
    if search is not None:
        (found,) = beam_search(source.model, [prompt], count, search, stop=source.stop)
        for one in found:
            print(f"{one.score:8.3f}  {options.prompt}{source.continuation(options.prompt, one.tokens)}")
        return
    if options.draft is not None:
        draft = load(options.draft)
        if draft.tokenizer.fingerprint != source.tokenizer.fingerprint:
            raise ConfigError(f"--draft {options.draft}: has another tokenizer than {options.folder}")
        settings = {"proposals": options.proposals, "stop": source.stop, "seed": options.seed}
        done = speculate(source.model, draft.model, prompt, count, sampling, **settings)
        print(options.prompt + source.continuation(options.prompt, done.tokens))
        print(f"{done.accepted} of {done.proposed} proposals accepted", file=sys.stderr)
        return
    print(options.prompt, end="", flush=True)
    try:
        for piece in write(source, options.prompt, count, sampling, stop=options.stop, seed=options.seed):
            print(piece, end="", flush=True)
    finally:
        print()  # after Ctrl-C, too


if __name__ == "__main__":
    sys.exit(main())
