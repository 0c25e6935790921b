"""Writing files whole or not at all, and one writer to a folder, whenever a writer dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxgpt.errors import UserError

LOCK = ".lock"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file, making its folder where missing: a reader sees the old content or the new.

    Raises UserError where it cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free space or mend its permissions") from None


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file. NaN, which JSON does not have, is a ValueError."""
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


# --------------------------------------------------------------------------------------------------------------- locks


class Locked(UserError):
    """Another process writes there."""


@contextlib.contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the only right to write in `folder`, waiting up to `wait` seconds for a holder that is about to end.

    The kernel drops the lock with its holder however that dies, so there is nothing to clean up.

    Raises:
      Locked: someone else still holds it; the message names the process.
      UserError: the folder cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose a place with --runs-dir or --run-dir"
        ) from None
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
                    raise Locked(f"{folder}: process {holder} is writing there; wait for it or stop it") from None
                time.sleep(0.1)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Whether a process is writing in `folder` now."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        # A shared lock for an instant: two readers that look at once do not see each other.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
