"""One writer to a folder, on one machine or on many that share it.

A writer leaves its name in the folder's `.lease` and touches that file every few seconds. It has gone when its process
is no more, which its own machine sees at once; seen from another machine, when the file was not touched for a minute.
Then the next writer takes over. A writer that was only asleep (a suspended process, a network file system that hung)
finds another's name there when it wakes, or no file, and ends at once: two never write for longer than a heartbeat.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from jaxgpt.errors import UserError

LEASE, GUARD = ".lease", ".lock"

BEAT = 5.0
"""Seconds between a writer's signs of life."""

LAPSE = 60.0
"""Seconds without one after which a writer on another machine counts as gone."""


class Locked(UserError):
    """Another process writes there."""

    exit_code = 75  # os.EX_TEMPFAIL: it may be free later


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process, named so that no other process is taken for it."""

    token: str  # of this lease alone
    host: str
    pid: int
    machine: str  # equal where process numbers mean the same: the boot, and the namespace of processes
    started: str  # when it started, by that machine's count: numbers of processes come again

    @classmethod
    def this(cls) -> Holder:
        pid = os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, _machine(), _started(pid) or "")


def holder(folder: Path) -> Holder | None:
    """Who writes in `folder` now, None if nobody does."""
    try:
        found = _read(folder / LEASE)
        return found if found and _lives(found, folder) else None
    except OSError:
        return None


def is_locked(folder: Path) -> bool:
    """Whether a process is writing in `folder` now."""
    return holder(folder) is not None


@contextlib.contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the only right to write in `folder`, waiting up to `wait` seconds for a holder that is about to end.

    Raises:
      Locked: someone else still holds it; the message names the process.
      UserError: the folder cannot be written.
    """
    me = Holder.this()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + wait
        while (other := _take(folder, me)) is not None:
            if time.monotonic() >= until:
                raise Locked(f"{folder}: process {other.pid} on {other.host} is writing there; wait for it or stop it")
            time.sleep(0.1)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose a place with --runs-dir or --run-dir"
        ) from None
    stopped = threading.Event()
    beat = threading.Thread(target=_beat, args=(folder, me, stopped), daemon=True, name=f"lease of {folder.name}")
    beat.start()
    try:
        yield
    finally:
        stopped.set()
        beat.join()
        _release(folder, me)


# ------------------------------------------------------------------------------------------------------------ the file


def _take(folder: Path, me: Holder) -> Holder | None:
    """Become the holder; the one there is, if it lives."""
    path = folder / LEASE
    handle, temporary = tempfile.mkstemp(prefix=f"{LEASE}.", dir=folder)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(dataclasses.asdict(me), file)
        with _guard(folder):
            # A link fails if there is one: so the first of two wins, guard or no guard. It fails, too, where there are
            # no links (mounted buckets), and NFS may say that it did when it did not.
            with contextlib.suppress(OSError):
                os.link(temporary, path)
                return None
            other = _read(path)
            if other not in (None, me) and _lives(other, folder):
                return other
            os.replace(temporary, path)
        return None
    finally:
        Path(temporary).unlink(missing_ok=True)


def _release(folder: Path, me: Holder) -> None:
    with contextlib.suppress(OSError), _guard(folder):
        if _read(folder / LEASE) == me:
            (folder / LEASE).unlink()


def _read(path: Path) -> Holder | None:
    """The holder a file names; None if there is no file, or half of one."""
    try:
        raw = json.loads(path.read_text())
        return Holder(**{field.name: raw[field.name] for field in dataclasses.fields(Holder)})
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """One process at a time looks and takes over, for the instant that this lasts. The kernel drops it with its holder.
    Where a file system has no such locks, two that take over at once settle it at the first heartbeat."""
    handle = os.open(folder / GUARD, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _beat(folder: Path, me: Holder, stopped: threading.Event) -> None:
    """Touch the file until told to stop. Whoever finds another's name there, or none because another has come and gone,
    has lost the folder, and must not write on: not even what a normal end would write."""
    while not stopped.wait(BEAT):
        try:
            found = _read(folder / LEASE)
            if found == me:
                os.utime(folder / LEASE)
                continue
            if found is None and not (folder / GUARD).exists():  # the folder was moved or removed as a whole
                continue
        except OSError:  # the file system hangs: who comes after it will say
            continue
        if not stopped.is_set():
            other = f"process {found.pid} on {found.host}" if found else "another process, which has ended"
            print(f"{folder}: was taken over by {other}; this one ends", file=sys.stderr)
            sys.stderr.flush()
            os._exit(Locked.exit_code)


# ------------------------------------------------------------------------------------------------------------ processes


def _lives(found: Holder, folder: Path) -> bool:
    if found.machine == _machine():
        return _started(found.pid) == found.started
    return _age(folder) < LAPSE


def _age(folder: Path) -> float:
    """Seconds since the lease was touched, by the clock of whoever keeps the files: machines' own may differ."""
    touched = (folder / LEASE).stat().st_mtime
    try:
        with tempfile.NamedTemporaryFile(prefix=f"{LEASE}.", dir=folder) as file:
            return os.stat(file.name).st_mtime - touched
    except OSError:  # only to be read by us
        return time.time() - touched


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, None if it is no more; where the system does not say, only whether it is."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
