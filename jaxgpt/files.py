"""Writing files whole or not at all, whenever a writer dies; and how long their names may be."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from jaxgpt.errors import UserError


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


LONGEST = 100
"""Characters of a name: with seed and hash it names a folder."""


def short_name(name: str, whole: str) -> str:
    """A name that a folder can have: one too long for that ends in a digest of `whole`, what it was made from."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
