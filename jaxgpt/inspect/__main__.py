"""`python -m jaxgpt.inspect FOLDER --prompt TEXT`: attention maps, routers, and what each layer would say, as pictures.

FOLDER is a run (`runs/.../<name>`), or a checkpoint of transformers with its tokenizer (extra `hf`). Without one, texts
are the numbers of tokens with spaces between them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxgpt.errors import exit_code


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m jaxgpt.inspect", description="Look inside a model.")
    made.add_argument("folder", type=Path, help="a run, or a checkpoint of transformers")
    made.add_argument("--checkpoint", default="last", metavar="WHICH", help="of a run: last (default), best, or a step")
    made.add_argument("--prompt", metavar="TEXT", help="the text it reads")
    made.add_argument(
        "--layers", type=int, nargs="+", metavar="N", help="attention maps of these, from 0 (default: some)"
    )
    made.add_argument(
        "--heads", type=int, nargs="+", metavar="N", help="attention maps of these, from 0 (default: some)"
    )
    made.add_argument(
        "--out", type=Path, default=Path("inspect"), metavar="DIR", help="where pictures go (default: inspect)"
    )
    made.add_argument("--near", metavar="WORD", help="which embeddings are nearest to that of a word's first token")
    made.add_argument("--analogy", nargs=3, metavar=("A", "B", "C"), help="what is to C as B is to A, by embeddings")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser()
    options = made.parse_args(arguments)
    if options.prompt is None and options.near is None and options.analogy is None:
        made.error("give --prompt, --near or --analogy")
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    from jaxgpt.generate.text import load
    from jaxgpt.inspect.look import like, look, near, save

    source = load(options.folder, options.checkpoint)
    console = Console(width=None if sys.stdout.isatty() else 100)
    if options.prompt is not None:
        looked = look(source, options.prompt, options.layers, options.heads)
        console.print(_table("what comes next", "probability", looked.likeliest))
        for path in save(looked.figures, options.out):
            print(path)
    if options.near is not None:
        console.print(_table(f"near {options.near}", "cosine", near(source, options.near)))
    if options.analogy is not None:
        one, other, third = options.analogy
        title = f"to {third} as {other} is to {one}"
        console.print(_table(title, "cosine", like(source, one, other, third)))


def _table(title: str, number: str, rows: Sequence[tuple[str, float]]) -> Table:
    made = Table(title=title, title_justify="left")
    made.add_column("token")
    made.add_column(number, justify="right")
    for name, value in rows:
        made.add_row(Text(name), f"{value:.3f}")
    return made


if __name__ == "__main__":
    sys.exit(main())
