"""What a user can get wrong, as exceptions whose message is all the user needs to read.

Every command line turns a `UserError` into one line on standard error and the exception's `exit_code`; anything else is
a fault of the program and keeps its traceback.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any


class UserError(ValueError):
    """Something the user can mend. The message names the thing, its place and the way out."""

    exit_code = 1


class ConfigError(UserError):
    """A configuration that cannot be built: unknown key or kind, wrong type, impossible combination."""

    exit_code = 2


class DataError(UserError):
    """A corpus or tokenizer that cannot serve: missing file, no text, documents too short, wrong tokenizer."""


class ContextTooLong(ConfigError):
    """A model that has no value for positions this far (learned embeddings): evaluation leaves the context out."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or belongs to something else."""


class TrainingError(UserError):
    """Training had to stop: the loss is no longer a number."""


class Interrupted(UserError):
    """Ctrl-C or SIGTERM arrived; the state was saved."""

    exit_code = 130


class PeerLost(Interrupted):
    """Another process of the run is gone: what it needs is to be started again, from the last checkpoint."""


def exit_code(run: Callable[[], int | None]) -> int:
    """Run the body of a command line; its exit code. A `UserError` becomes one line on standard error; a Ctrl-C that
    nobody took needs no words."""
    try:
        return run() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code


def from_extra(library: str, extra: str, who: str, kind: type[UserError] = UserError) -> Any:
    """A library that comes with an extra. Where it is not installed, an error of this kind says `who` (with the verb:
    `tasks need`) the extra, and how to install it."""
    try:
        return importlib.import_module(library)
    except ImportError:
        raise kind(f"{who} the extra {extra}: pip install 'jaxgpt[{extra}]'") from None


def nearest(name: str, existing: Iterable[str]) -> str:
    """`; did you mean 'x'? (there are: a, b, x)`: the tail every unknown-name message shares."""
    names = sorted(map(str, existing))
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} (there are: {', '.join(names) or 'none'})"


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says, or its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
