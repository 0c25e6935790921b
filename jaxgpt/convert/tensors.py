"""Tensors of a folder of safetensors files, mapped into memory and read one at a time; and the writing of such files.

The format is a length, a JSON header and raw bytes (https://huggingface.co/docs/safetensors). It is read here because
its library has no bfloat16 for numpy, and so that a page read is given back once its tensor has been taken over.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxgpt.convert.settings import ConversionError
from jaxgpt.files import write_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class Tensors(Mapping[str, np.ndarray]):
    """Name -> array of all safetensors files of a folder, views of mapped memory. Close it, or use it in a `with`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._maps: dict[str, mmap.mmap] = {}
        self._where: dict[str, tuple[str, dict[str, Any], int]] = {}
        for file in self._files():
            self._open(file)

    def _files(self) -> list[str]:
        index, single = self.folder / INDEX, self.folder / SINGLE
        if index.exists() and not single.exists():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConversionError(f"{index}: is not an index of safetensors files") from None
        else:
            names = [SINGLE] if single.exists() else []
        if not names:
            others = sorted(path.name for path in self.folder.glob("*.bin"))
            hint = f"; {others[0]} is pickled, which can run code: convert it to safetensors first" if others else ""
            raise ConversionError(f"{self.folder}: holds neither {SINGLE} nor {INDEX}{hint}")
        return names

    def _open(self, name: str) -> None:
        path = self.folder / name
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ConversionError(f"{path}: cannot be read ({error})") from None
        size = int.from_bytes(mapped[:8], "little")
        try:
            header = json.loads(mapped[8 : 8 + size])
            header.pop("__metadata__", None)
            for key, entry in header.items():
                if entry["dtype"] not in DTYPES:
                    raise ConversionError(f"{path}: {key} is {entry['dtype']}, quantised; dequantise the model first")
                begin, end = entry["data_offsets"]
                count = math.prod(entry["shape"]) * np.dtype(DTYPES[entry["dtype"]]).itemsize
                if end - begin != count or 8 + size + end > len(mapped):
                    raise ConversionError(f"{path}: is cut short or damaged at {key}")
                self._where[key] = name, entry, 8 + size + begin
        except ConversionError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConversionError(f"{path}: is not a safetensors file ({type(error).__name__}: {error})") from None
        self._maps[name] = mapped

    def __getitem__(self, name: str) -> np.ndarray:
        file, entry, begin = self._where[name]
        count = math.prod(entry["shape"])
        flat = np.frombuffer(self._maps[file], DTYPES[entry["dtype"]], count, begin)
        return flat.reshape(entry["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name][1]["shape"])

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(DTYPES[self._where[name][1]["dtype"]])

    def forget(self, name: str) -> None:
        """Give back the memory of a tensor that has been read; it can be read again."""
        file, entry, begin = self._where[name]
        end = begin + math.prod(entry["shape"]) * self.dtype(name).itemsize
        first = begin - begin % mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and end > first:
            self._maps[file].madvise(mmap.MADV_DONTNEED, first, end - first)

    def rename(self, names: Mapping[str, str]) -> None:
        """Give tensors other names: old -> new."""
        self._where = {names.get(name, name): where for name, where in self._where.items()}

    def close(self) -> None:
        self._where.clear()
        self._maps.clear()  # unmapped with the last view of them

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_tensors(
    folder: Path,
    entries: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    read: Callable[[str], np.ndarray],
    shard_bytes: int,
) -> None:
    """Write safetensors files of at most `shard_bytes` each (more where one tensor is larger), with an index if they
    are several.

    entries: shape and type of every tensor by name. read: the tensor of a name, asked for once.
    """
    sizes = {name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in entries.items()}
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    many = len(shards) > 1
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" if many else SINGLE for i in range(len(shards))]
    try:
        for file, names in zip(files, shards, strict=True):
            _write_file(folder / file, {name: entries[name] for name in names}, read)
    except OSError as error:
        raise ConversionError(
            f"{folder}: cannot be written ({error.strerror}); free space or mend its permissions"
        ) from None
    for stale in [folder / INDEX, *folder.glob(SINGLE), *folder.glob("model-*-of-*.safetensors")]:
        if stale.name not in files:  # of another checkpoint that was here
            stale.unlink(missing_ok=True)
    if many:
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map})


def _write_file(path: Path, entries: Mapping[str, tuple[tuple[int, ...], np.dtype]], read) -> None:
    codes = {np.dtype(kind): code for code, kind in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, (shape, dtype) in entries.items():
        end = begin + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, (shape, dtype) in entries.items():
                array = np.asarray(read(name), dtype)
                assert array.shape == shape, (name, array.shape, shape)
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
