"""The cache folder: built once under a lock, put in place at one stroke, checked whenever it is used.

The folder is `$JAXGPT_CACHE`, or `~/.cache/jaxgpt`. Every entry is a folder named by what it was made from, so that
nothing in it is ever out of date; deleting any of it costs only the time to build it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxgpt.data.corpora.base import file_digest
from jaxgpt.errors import DataError

_LOG = logging.getLogger(__name__)
_INDEX = "index.json"
_ALWAYS_HASHED = 64 * 2**20  # bytes; larger files are hashed again only when they look changed
_SETTLED = 2 * 10**9  # ns; a file changed more recently could change again without its times showing it


def cache_directory(given: Path | None = None) -> Path:
    """The folder to keep what can be built again: `given`, else `$JAXGPT_CACHE`, else `~/.cache/jaxgpt`."""
    return Path(given or os.environ.get("JAXGPT_CACHE") or "~/.cache/jaxgpt").expanduser()


def _unwritable(directory: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"the cache folder {directory} cannot be written ({reason}); set JAXGPT_CACHE to one that can")


class FileDigests:
    """SHA-256 of files, remembered beside their size and times, so that unchanged files are not read again."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._path = directory / "file-digests.json"
        self._changed = False
        try:
            self._known: dict[str, list] = dict(json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):  # not there yet, or damaged: it only saves time
            self._known = {}

    def __call__(self, path: Path) -> str:
        """SHA-256 of a file in hexadecimal. Raises DataError where it cannot be read."""
        path = path.absolute()
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._known.get(str(path))
        if isinstance(known, list) and known[:4] == stamp and len(known) == 5:
            return str(known[4])
        digest = file_digest(path)
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED:
            self._known[str(path)] = [*stamp, digest]
            self._changed = True
        return digest

    def save(self) -> None:
        """Remember for the next process; where that cannot be, it reads the files again."""
        if not self._changed:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._known), encoding="utf-8")
            temporary.replace(self._path)
            self._changed = False


def cached(directory: Path, name: str, build: Callable[[Path], None], digests: FileDigests) -> Path:
    """The folder `directory/name`, made by `build(folder)` where it is missing or damaged.

    Several processes may ask at once: one builds, the others wait. A builder that is killed leaves nothing that could
    be taken for an entry. Raises DataError where the folder cannot be written.
    """
    entry = directory / name
    if _intact(entry, digests):
        return entry
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory / f"{name}.lock"):
            if _intact(entry, digests):  # another process was faster
                return entry
            building = directory / f"{name}.building"
            if entry.exists():
                _LOG.warning("%s is damaged and is built again", entry)
                shutil.rmtree(entry)
            shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
            building.mkdir()
            build(building)
            _write_index(building)
            building.replace(entry)
    except OSError as error:
        raise _unwritable(directory, error) from None
    return entry


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the system takes back if the process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.info("waiting for another process that holds %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _files(entry: Path) -> list[Path]:
    return sorted(path for path in entry.rglob("*") if path.is_file() and path.name != _INDEX)


def _write_index(entry: Path) -> None:
    files = {path.relative_to(entry).as_posix(): [path.stat().st_size, file_digest(path)] for path in _files(entry)}
    (entry / _INDEX).write_text(json.dumps(files, indent=1), encoding="utf-8")


def _intact(entry: Path, digests: FileDigests) -> bool:
    """Whether the entry holds the files its index names, byte for byte."""
    try:
        index = json.loads((entry / _INDEX).read_bytes())
        for name, (size, digest) in index.items():
            path = entry / name
            if path.stat().st_size != size:
                return False
            if (file_digest(path) if size <= _ALWAYS_HASHED else digests(path)) != digest:
                return False
    except (OSError, ValueError, TypeError, AttributeError, DataError):
        return False
    return True
