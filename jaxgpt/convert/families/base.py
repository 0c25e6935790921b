"""What a family of checkpoints is: how its settings and tensors correspond to a decoder's."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from jaxgpt.config import FrozenMapping
from jaxgpt.convert.rules import Rule
from jaxgpt.convert.settings import Settings
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.models.stack import of_kind

SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "train_length": "max_position_embeddings",
}


def without(*names: str) -> dict[str, str]:
    """The usual sizes but these."""
    return {ours: theirs for ours, theirs in SIZES.items() if ours not in names}


class Family:
    """One `model_type` of transformers. Subclasses live in a file each and are found there.

    sizes: our names of the sizes -> theirs; what a family does not have is left out.
    tied: whether embeddings are tied where the settings do not say.
    ignored: patterns of tensors that hold nothing of their own, or nothing that is used here.
    defaults: settings of files that leave them out, as transformers has them.
    aliases: older names of settings -> those used here.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    sizes: ClassVar[Mapping[str, str]] = SIZES
    tied: ClassVar[bool] = False
    ignored: ClassVar[tuple[str, ...]] = ("*.rotary_emb.inv_freq",)
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    aliases: ClassVar[Mapping[str, str]] = MappingProxyType({})
    rules: ClassVar[tuple[Rule, ...]]

    def config(self, settings: Settings) -> DecoderConfig:
        """The decoder that a `config.json` describes. Raises ConversionError where this package has no such model."""
        raise TypeError(f"{type(self).__name__} must define config()")

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        """The settings of a decoder: `config` of them must give the same function, else it is not of this family."""
        raise TypeError(f"{type(self).__name__} must define settings()")

    def rules_of(self, config: DecoderConfig) -> tuple[Rule, ...]:
        """The rules for a decoder of this family; where tensors are called otherwise in some, override it."""
        return self.rules

    def ignored_of(self, config: DecoderConfig, names: Collection[str]) -> tuple[str, ...]:
        """`ignored`, for a decoder and a file with tensors of these names; where it depends on them, override it."""
        return self.ignored

    def read(self, settings: Settings) -> DecoderConfig:
        """`config` of settings with their older names and defaults filled in."""
        older = {new: settings[old] for old, new in self.aliases.items() if old in settings and new not in settings}
        return self.config(Settings({**self.defaults, **older, **settings}, settings.place))

    def read_sizes(self, settings: Settings) -> dict[str, Any]:
        """Fields of DecoderConfig that are sizes, and whether embeddings are tied."""
        optional = ("num_kv_heads", "head_dim")
        found = {
            ours: settings.get(theirs) if ours in optional else settings[theirs] for ours, theirs in self.sizes.items()
        }
        return {**found, "tie_embeddings": settings.get("tie_word_embeddings", self.tied)}

    def written_sizes(self, config: DecoderConfig) -> dict[str, Any]:
        """The other way round."""
        dims = config.layer_dims
        values = {
            "vocab_size": config.vocab_size,
            "width": dims.width,
            "num_layers": config.num_layers,
            "num_heads": dims.num_heads,
            "num_kv_heads": dims.num_kv_heads,
            "head_dim": dims.head_dim,
            "train_length": dims.train_length,
        }
        found = {theirs: values[ours] for ours, theirs in self.sizes.items()}
        return {**found, "tie_word_embeddings": config.tie_embeddings}


def families() -> dict[str, Family]:
    """model_type -> family, in alphabetical order."""
    package = importlib.import_module("jaxgpt.convert.families")
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(package.__path__, prefix=f"{package.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Family) and "model_type" in vars(value):
                found[value.model_type] = value()
    return dict(sorted(found.items()))


# ------------------------------------------------------------------------------------------------------ layers by kind

TYPES = {"sliding_attention": "local", "full_attention": "global"}


def layers(kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`first_layers` and `pattern` of a DecoderConfig whose layers are of these kinds: as few as tell them."""
    count = len(kinds)
    first, size = min(
        (
            (first, size)
            for first in range(count)
            for size in range(1, count - first + 1)
            if (count - first) % size == 0 and all(kinds[i] == kinds[i + size] for i in range(first, count - size))
        ),
        key=lambda pair: (pair[0] + pair[1], pair[0]),
    )
    return {"first_layers": tuple(kinds[:first]), "pattern": tuple(kinds[first : first + size])}


def windows(types: Sequence[str], window: int | None) -> dict[str, Any]:
    """Fields of a DecoderConfig with layers of these `layer_types`, of which sliding ones see `window` tokens."""
    kinds = [TYPES[kind] for kind in types]
    if "local" not in kinds or window is None:
        return {}
    if "global" not in kinds:
        return {"window": window}
    return {**layers(kinds), "window": FrozenMapping({"local": window, "global": None})}


def layer_types(config: DecoderConfig) -> tuple[list[str], int | None]:
    """`layer_types` of a decoder, and the window of the sliding ones (the first one's)."""
    found = [of_kind(config.window, kind) for kind in config.order.kinds]
    types = ["full_attention" if window is None else "sliding_attention" for window in found]
    return types, next((window for window in found if window is not None), None)
