"""Checkpoint folders of transformers into a model and back."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgpt.config import encode
from jaxgpt.convert.families.base import Family, families
from jaxgpt.convert.folder import CONFIG, read_json, read_settings
from jaxgpt.convert.function import function, spelt
from jaxgpt.convert.rules import Piece, Rule, check, pieces, to_theirs
from jaxgpt.convert.settings import ConversionError, Settings
from jaxgpt.convert.tensors import Tensors, write_tensors
from jaxgpt.errors import ConfigError, nearest
from jaxgpt.files import write_json
from jaxgpt.models.decoder import Decoder, DecoderConfig
from jaxgpt.nn.params import flatten, unflatten

PREFERRED = ("llama", "gpt2", "gpt_neox")
ALIGNMENT = 64  # bytes; arrays that begin so can become JAX arrays without a copy
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template*",
)
DType = Literal["float32", "bfloat16"]


def load_pretrained(folder: str | Path, dtype: DType | None = None) -> tuple[Decoder, DecoderConfig]:
    """The model of a folder with `config.json` and safetensors files, as transformers writes it, and its configuration:
    `model(tokens).logits` is the forward pass.

    dtype: of parameters and activations. None: that of most of the file's numbers, float32 for types with less range.

    Memory stays near the size of the parameters: files are mapped and taken over one tensor at a time.

    Raises:
      ConversionError: the family or one of its settings is not supported, or the tensors do not fit the settings; then
        the message lists all that are missing, unexpected and misshapen; or a file contradicts itself.
    """
    folder = Path(folder).expanduser()
    family, config = _described(folder)
    abstract = jax.eval_shape(config.make, jax.random.key(0))
    parameters = flatten(abstract)
    with Tensors(folder) as tensors:
        wanted = list(pieces(family.rules_of(config), config.order, parameters))
        _add_prefix(tensors, family)
        check(wanted, {name: tensors.shape(name) for name in tensors}, _ignored(family, config, tensors), str(folder))
        if config.tie_embeddings:
            _check_tied(family, config, tensors)
        chosen = dtype or _common_dtype(tensors)
        arrays = _read(wanted, parameters, tensors, np.dtype(jnp.dtype(chosen)), _statistics(abstract))
    return unflatten(abstract, arrays), dataclasses.replace(config, compute_dtype=chosen)


def read_config(folder: str | Path) -> DecoderConfig:
    """The configuration of the model in a folder, without reading its tensors. Raises ConversionError."""
    folder = Path(folder).expanduser()
    _, config = _described(folder)
    with Tensors(folder) as tensors:
        return dataclasses.replace(config, compute_dtype=_common_dtype(tensors))


def save_pretrained(
    model: Decoder,
    config: DecoderConfig,
    folder: str | Path,
    *,
    family: str | None = None,
    like: str | Path | None = None,
    shard_bytes: int = 5 * 10**9,
) -> str:
    """Write `model` as a folder that transformers loads, in the type its parameters have, and return the `model_type`.

    family: which `model_type` to write. None: the first one that computes exactly what `config` says, the widely
    supported ones before the others.
    like: a checkpoint folder whose tokenizer files and numbers of special tokens are taken over.
    shard_bytes: the largest size of a file; more makes several, with an index.

    Raises:
      ConversionError: no family, or not this one, computes what `config` says; the message names the settings that it
        would lose.
    """
    folder = Path(folder).expanduser()
    chosen, settings = _writable(config, family)
    ends: dict[str, Any] = dict.fromkeys(SPECIAL_TOKENS)
    if like is not None:
        source = read_json(Path(like).expanduser() / CONFIG)
        ends = {name: source.get(name) for name in SPECIAL_TOKENS}
    parameters = flatten(model)
    written = list(pieces(chosen.rules_of(config), config.order, parameters))
    dtypes = {path: np.dtype(array.dtype) for path, array in parameters.items()}
    entries = {
        name: (shape, dtypes[piece.ours[0][0]])
        for piece in written
        for name, shape in zip(piece.theirs, piece.their_shapes, strict=True)
    }
    by_name = {name: piece for piece in written for name in piece.theirs}
    cached: dict[str, np.ndarray] = {}

    def read(name: str) -> np.ndarray:
        if name not in cached:
            cached.clear()
            cached.update(to_theirs(by_name[name], parameters))
        return cached[name]

    write_tensors(folder_made(folder), entries, read, shard_bytes)
    head = {"architectures": [chosen.architecture], "model_type": chosen.model_type, "dtype": str(dtypes["embedding"])}
    write_json(folder / CONFIG, {**head, **settings, **ends})
    if like is not None:
        _copy_tokenizer(Path(like).expanduser(), folder)
    return chosen.model_type


def _copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what a checkpoint has of its tokenizer."""
    if source.resolve() == folder.resolve():
        return
    try:
        for pattern in TOKENIZER_FILES:
            for path in source.glob(pattern):
                if path.is_file():
                    shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise ConversionError(f"{folder}: the tokenizer of {source} cannot be copied ({error.strerror})") from None


def folder_made(folder: Path) -> Path:
    """The folder, made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConversionError(f"{folder}: cannot be made ({error.strerror})") from None
    return folder


def _described(folder: Path) -> tuple[Family, DecoderConfig]:
    """The family of a folder's model, and its configuration."""
    settings, found = read_settings(folder), families()
    kind = settings["model_type"]
    if kind not in found:
        raise ConversionError(f"{settings.place}: model_type {kind!r} is not supported{nearest(str(kind), found)}")
    family = found[kind]
    try:
        return family, family.read(settings)
    except ConversionError:
        raise
    except (ConfigError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise ConversionError(f"{settings.place}: describes no {family.model_type} model ({error})") from None


def _ignored(family: Family, config: DecoderConfig, names: Collection[str]) -> tuple[str, ...]:
    """Patterns of tensors that hold nothing of their own; the head of tied embeddings is one."""
    head = _name(family.rules_of(config), "/head_matrix")
    ignored = family.ignored_of(config, names)
    return (*ignored, head) if config.tie_embeddings and head is not None else ignored


def _name(rules: Sequence[Rule], path: str) -> str | None:
    """What the tensor of a parameter outside the layers is called, if there can be one."""
    return next((str(rule.theirs) for rule in rules if rule.paths == (path,)), None)


def _check_tied(family: Family, config: DecoderConfig, tensors: Tensors) -> None:
    """Raise ConversionError where a file has a head of its own beside embeddings that its settings tie to it: which of
    both was trained cannot be known."""
    rules = family.rules_of(config)
    head, embedding = _name(rules, "/head_matrix"), _name(rules, "/embedding")
    if head is None or head not in tensors or embedding is None:
        return
    same = tensors.shape(head) == tensors.shape(embedding) and np.array_equal(tensors[head], tensors[embedding])
    tensors.forget(head)
    if not same:
        raise ConversionError(
            f"{tensors.folder}: {head} is not {embedding}, and config.json ties them; set tie_word_embeddings to false "
            f"there if the head is a matrix of its own, or remove {head}"
        )


def _add_prefix(tensors: Tensors, family: Family) -> None:
    """Name tensors as those of the whole model where a file has those of its body, such as GPT-2's (`h.0...`)."""
    prefix = str(_name(family.rules, "/embedding")).partition(".")[0] + "."
    if not any(name.startswith(prefix) for name in tensors):
        tensors.rename({name: prefix + name for name in tensors if not name.startswith(("lm_head.", "embed_out."))})


def _common_dtype(tensors: Tensors) -> DType:
    sizes: dict[np.dtype, int] = {}
    for name in tensors:
        sizes[tensors.dtype(name)] = sizes.get(tensors.dtype(name), 0) + int(np.prod(tensors.shape(name)))
    most = max(sizes, key=lambda dtype: sizes[dtype])
    return "bfloat16" if most == np.dtype(jnp.bfloat16) else "float32"


def _statistics(abstract: Any) -> set[str]:
    """Paths of what is not trained by gradients."""
    leaves = jax.tree.leaves(abstract, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    paths = flatten(abstract)
    return {path for path, leaf in zip(paths, leaves, strict=True) if not isinstance(leaf, nnx.Param)}


def _read(
    wanted: list[Piece], parameters: Mapping[str, Any], tensors: Tensors, dtype: np.dtype, statistics: set[str]
) -> dict[str, jax.Array]:
    """Every parameter by path, tensors taken one after the other."""
    single = np.dtype(np.float32)  # statistics decide between near ties
    arrays = {
        path: _empty(tuple(leaf.shape), single if path in statistics else dtype) for path, leaf in parameters.items()
    }
    for piece in wanted:
        found = piece.rule.layout.read([tensors[name] for name in piece.theirs], piece.our_shapes)
        for (path, place, _), array in zip(piece.ours, found, strict=True):
            if place is None:
                arrays[path][...] = array
            else:
                arrays[path][place] = array
        for name in piece.theirs:
            tensors.forget(name)
    return {path: jax.device_put(arrays.pop(path)) for path in list(arrays)}


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array whose memory JAX can take over."""
    count = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(count + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + count].view(dtype).reshape(shape)


def _writable(config: DecoderConfig, family: str | None) -> tuple[Family, dict[str, Any]]:
    """The family to write and its settings."""
    found = families()
    if family is not None and family not in found:
        raise ConversionError(f"family {family!r} is not supported{nearest(family, found)}")
    others = [name for name in found if name not in PREFERRED]
    names = [family] if family is not None else [*PREFERRED, *others]
    complaint = ""
    for name in names:
        try:
            settings = found[name].settings(spelt(config))
            again = found[name].config(Settings(settings, f"{name} settings"))
        except (ConversionError, ConfigError, AttributeError, ValueError) as error:
            complaint = str(error)
            continue
        lost = _differences(function(config), function(again))
        if not lost:
            return found[name], settings
        complaint = "it would change " + "; ".join(lost)
    if family is not None:
        raise ConversionError(f"a {family} model does not compute what this configuration says: {complaint}")
    raise ConversionError("no family of transformers computes what this configuration says; family=NAME tells why not")


def _differences(one: DecoderConfig, other: DecoderConfig) -> list[str]:
    """Fields in which two configurations differ by more than the rounding of a number."""
    lost = []
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if not _close(encode(mine), encode(theirs)):
            lost.append(f"model.{field.name} from {mine} to {theirs}")
    return lost


def _close(one: Any, other: Any) -> bool:
    """Whether two plain values are the same, numbers up to rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return one == other
