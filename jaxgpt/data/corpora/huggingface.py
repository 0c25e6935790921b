"""Datasets of the Hugging Face hub, or of a folder that its library reads (extra `hf`)."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from jaxgpt.config import content_hash
from jaxgpt.data.cache import FileDigests, cache_directory
from jaxgpt.data.corpora.base import CorpusConfig, Digest, Document, digest_of, file_digest
from jaxgpt.errors import ConfigError, DataError, first_line, from_extra
from jaxgpt.registry import register

_COMMIT = re.compile(r"[0-9a-f]{40}")


@register("huggingface")
@dataclasses.dataclass(frozen=True)
class HuggingFaceConfig(CorpusConfig):
    """The first `max_documents` texts of a dataset, streamed: no more than these is fetched, and once. They stay in
    the cache folder, so that later runs need no network.

    name: on the hub, such as `HuggingFaceFW/fineweb-edu`, or a folder with data files.
    subset: the hub's name of a part, such as `sample-10BT`. split: which split. revision: a branch, tag or commit; with
    a whole commit the hub is asked nothing once the texts are here.
    """

    more_documents: ClassVar[str] = "raise data.corpus.max_documents"

    name: str
    max_documents: int
    subset: str | None = None
    split: str = "train"
    text_field: str = "text"  # the column that holds the text
    revision: str = "main"

    def __post_init__(self) -> None:
        if self.max_documents < 1:
            raise ValueError(f"max_documents: must be at least 1, got {self.max_documents}")

    @property
    def _local(self) -> Path | None:
        path = Path(self.name).expanduser()
        return path if path.is_dir() else None

    def _commit(self, digest: Digest) -> str:
        """What tells one state of the dataset from another: the hub's commit, or a digest of a folder's files."""
        if self._local is not None:
            files = sorted(path for path in self._local.rglob("*") if path.is_file())
            parts = [part for path in files for part in (path.relative_to(self._local).as_posix(), digest(path))]
            return digest_of(parts)[:40]
        if _COMMIT.fullmatch(self.revision):
            return self.revision
        return _commit_of(self.name, self.revision)

    def _file(self) -> Path:
        """The texts in the cache folder, fetched where they are not there yet."""
        digests = FileDigests(cache_directory() / "data")
        what = {**dataclasses.asdict(self), "revision": self._commit(digests)}
        digests.save()
        path = cache_directory() / "huggingface" / f"{content_hash(what, 16)}.jsonl.gz"
        if path.exists():
            return path
        unfinished = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(unfinished, "wt", encoding="utf-8", compresslevel=3) as file:
                for number, text in enumerate(self._stream(what["revision"])):
                    file.write(json.dumps([str(number), text]) + "\n")
            unfinished.replace(path)
        except OSError as error:
            raise DataError(f"{path.parent}: cannot be written ({error.strerror}); set JAXGPT_CACHE") from None
        finally:
            unfinished.unlink(missing_ok=True)
        return path

    def _stream(self, commit: str) -> Iterator[str]:
        datasets = from_extra("datasets", "hf", "data.corpus: huggingface needs", DataError)
        where: dict[str, Any] = {} if self._local is not None else {"revision": commit}
        try:
            found = datasets.load_dataset(
                str(self._local or self.name), self.subset, split=self.split, streaming=True, **where
            )
            for row in itertools.islice(found, self.max_documents):
                text = row.get(self.text_field, 0)
                if text is None:  # as good as empty
                    text = ""
                if not isinstance(text, str):
                    has = ", ".join(map(repr, row))
                    raise ConfigError(
                        f"data.corpus: no text under {self.text_field!r} in {self.name} (it has {has}); set text_field"
                    )
                yield text
        except ConfigError:
            raise
        except Exception as error:  # network, names, formats: the library's own, of many types
            raise DataError(f"data.corpus: {self.name} cannot be read ({first_line(error)})") from None

    def documents(self) -> Iterator[Document]:
        path, empty = self._file(), True
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                name, text = json.loads(line)
                if text.strip():
                    empty = False
                    yield Document(name, text)
        if empty:
            raise DataError(f"data.corpus: the first {self.max_documents} texts of {self.name} are empty")

    def fingerprint(self, digest: Digest = file_digest) -> str:
        fields = [f"{field.name}={getattr(self, field.name)}" for field in dataclasses.fields(self)]
        return digest_of(["huggingface", *fields, self._commit(digest)])


@functools.cache  # a branch may move between two questions
def _commit_of(name: str, revision: str) -> str:
    """The commit that a branch or tag stands for, as the hub tells it."""
    hub = from_extra("huggingface_hub", "hf", "data.corpus: huggingface needs", DataError)
    try:
        return str(hub.HfApi().dataset_info(name, revision=revision).sha)
    except Exception as error:  # the library's own, of many types
        raise DataError(
            f"data.corpus: the hub does not tell the commit of {name} ({first_line(error)}); where there is no "
            "network, give the whole commit as data.corpus.revision"
        ) from None
