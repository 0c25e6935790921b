"""What was written, file by file: the seal of a checkpoint's folder.

Orbax reads flipped bytes without an error. So every file's size and SHA-256 are kept in `manifest.json`, written when
all files are there and before the folder gets its name, and are compared before anything is read.
"""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

from jaxgpt.errors import CheckpointError

NAME = "manifest.json"


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that is not what was written: which file or folder, how, and the way out."""

    def __init__(
        self, place: Path, how: str, way: str = "train again, which goes on from the newest checkpoint that is intact"
    ):
        super().__init__(f"{place}: {how}; {way}")
        self.place, self.how = place, how


def seal(folder: Path) -> None:
    """Write the manifest of all that lies in the folders of `folder`. Files beside them are notes of Orbax, which
    finishes them later, and hold no numbers."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent != folder]
    described = {path.relative_to(folder).as_posix(): _describe(path) for path in files}
    (folder / NAME).write_text(json.dumps({"files": described}, indent=1), encoding="utf-8")


def verify(folder: Path, below: str = "") -> None:
    """Raise DamagedCheckpoint, which names the first file that is not as it was written; CheckpointError where the
    machine does not let them be read (permissions, too many open files). `below`: one of the folders, to verify that
    alone."""
    try:
        files = json.loads((folder / NAME).read_text(encoding="utf-8"))["files"]
        if not files:
            raise DamagedCheckpoint(folder / NAME, "names no files")
        for name, described in files.items():
            if name.startswith(f"{below}/" if below else "") and _describe(folder / name) != described:
                raise DamagedCheckpoint(folder / name, "is damaged (its checksum differs)")
    except FileNotFoundError as error:
        raise DamagedCheckpoint(Path(error.filename or folder), "is missing") from None
    except OSError as error:
        place, how = Path(error.filename or folder), f"cannot be read ({error.strerror})"
        if error.errno in (errno.EIO, errno.EISDIR, errno.ENOTDIR):
            raise DamagedCheckpoint(place, how) from None
        raise CheckpointError(f"{place}: {how}; mend that and run again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DamagedCheckpoint):
            raise
        raise DamagedCheckpoint(folder / NAME, "is damaged (it is no manifest)") from None


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
