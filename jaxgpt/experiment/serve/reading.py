"""Files that others may be writing. What is missing or broken is left out, and nothing here raises for it."""

from __future__ import annotations

import bisect
import codecs
import contextlib
import json
import math
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

_AXES = ("step", "tokens", "seconds")
_CHECKED = 64  # bytes before the end of what was read that must still be there when more is read
LOG_END = 64 * 1024
"""Bytes of a log that are shown first."""

Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """What changes when a file does: inode, size, time of change. None where there is no regular file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if S_ISREG(found.st_mode) else None


def number(value: Any) -> float | int | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the floats
        return None


def whole(value: Any) -> int:
    """The value if it is a whole number, else 0."""
    return value if isinstance(value, int) and number(value) is not None else 0


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def json_lines(path: Path, most: int = 100) -> list[dict[str, Any]]:
    """The last mappings in a file of JSON lines, empty where there is none."""
    if stamp(path) is None:
        return []
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-most:]:
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
    return found


def log_part(path: Path, after: int | None = None) -> dict[str, Any]:
    """What a log holds beyond byte `after`, or its end: `text`, `start` and `end` in bytes."""
    now = stamp(path)
    size = now[1] if now else 0
    start = max(0, size - LOG_END) if after is None or not 0 <= after <= size or size - after > LOG_END else after
    text = b""
    if now:
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(start)
            text = file.read(LOG_END)
    if start and start != after:  # begin with a whole line
        cut = text.find(b"\n") + 1
        start, text = start + cut, text[cut:]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    shown = decoder.decode(text)
    return {"text": shown, "start": start, "end": start + len(text) - len(decoder.getstate()[0])}


# -------------------------------------------------------------------------------------------------------------- curves


class Training(NamedTuple):
    """A line of metrics.jsonl about training. `loss` is nan where a run wrote no number."""

    step: int
    tokens: float
    seconds: float  # since the start of the first process
    loss: float
    speed: float | None  # tokens per second


class Validation(NamedTuple):
    """A line of metrics.jsonl about held-out text. `seconds` are those of the training line before."""

    step: int
    tokens: float
    seconds: float
    loss: float


class Metrics:
    """metrics.jsonl as far as it was written. As in `RunFolder.curve`, the last line of a step and kind counts.

    `version` changes with the content, `problem` says what of it could not be read, and `names` are those of the
    numbers beside the loss that training lines hold.
    """

    def __init__(self, path: Path):
        self.path, self.version = path, 0
        self._seen: Stamp | None = None
        self._forget()

    def _forget(self) -> None:
        self._read, self._last, self._broken = 0, b"", 0
        self.problem: str | None = None
        self.names: dict[str, None] = {}
        self._training: dict[int, tuple[float, float, float, float | None]] = {}
        self._validation: dict[int, tuple[float, float]] = {}
        self.training: list[Training] = []
        self.validation: list[Validation] = []

    def refresh(self) -> None:
        """Read what was appended; everything, where the file is another one or its beginning changed."""
        now = stamp(self.path)
        if now == self._seen:
            return
        try:
            new = b"" if now is None else self._appended(now)
        except OSError as error:
            self._forget()
            self.problem, new = f"{self.path.name}: cannot be read ({error.strerror})", b""
        if now is None:
            self._forget()
        self._seen, self.version = now, self.version + 1
        for line in new.splitlines():
            if line.strip():
                self._add(line)
        if self._broken:
            self.problem = f"{self.path.name}: {self._broken} lines cannot be read"
        self._sort()

    def _appended(self, now: Stamp) -> bytes:
        """The whole lines that were not read before."""
        if self._seen is None or now[0] != self._seen[0] or now[1] < self._read:
            self._forget()
        with self.path.open("rb") as file:
            file.seek(self._read - len(self._last))
            content = file.read()
            if not content.startswith(self._last):
                self._forget()
                file.seek(0)
                content = file.read()
        new = content[len(self._last) :]
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        self._last = (self._last + new)[-_CHECKED:]
        return new

    def _add(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            step = entry["step"]
        except (ValueError, TypeError, KeyError, RecursionError):
            self._broken += 1
            return
        if not isinstance(step, int) or number(step) is None:
            self._broken += 1
            return
        tokens = _float(entry.get("tokens"))
        if "validation_loss" in entry:
            self._validation[step] = (tokens, _float(entry["validation_loss"]))
        elif "loss" in entry:
            speed = number(entry.get("tokens_per_second"))
            self._training[step] = (tokens, _float(entry.get("seconds")), _float(entry["loss"]), speed)
            known = (*self.names, *_AXES, "loss")
            self.names |= dict.fromkeys(name for name in entry if name not in known and number(entry[name]) is not None)

    def _sort(self) -> None:
        training, before, offset = [], 0.0, 0.0
        for step, (tokens, seconds, loss, speed) in sorted(self._training.items()):
            if seconds + offset < before:  # each process counts from its own start
                offset = before
            before = before if math.isnan(seconds) else seconds + offset
            training.append(Training(step, tokens, before, loss, speed))
        steps, self.training, self.validation = [line.step for line in training], training, []
        for step, (tokens, loss) in sorted(self._validation.items()):
            place = bisect.bisect_right(steps, step)
            self.validation.append(Validation(step, tokens, training[place - 1].seconds if place else 0.0, loss))


def _float(value: Any) -> float:
    found = number(value)
    return math.nan if found is None else float(found)
