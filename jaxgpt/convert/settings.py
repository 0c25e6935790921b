"""The `config.json` of a checkpoint, read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxgpt.errors import UserError, nearest
from jaxgpt.nn.activation import Activation

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu_squared",
}
NAMES: dict[Activation, str] = {
    "gelu_erf": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "relu": "relu",
    "relu_squared": "relu2",
}


class ConversionError(UserError):
    """A checkpoint that cannot be read, or a model that cannot be written."""


class Settings(Mapping[str, Any]):
    """Keys and values of a `config.json`; what is missing or not supported is a ConversionError with its place."""

    def __init__(self, values: Mapping[str, Any], place: str):
        self._values, self.place = dict(values), place

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise ConversionError(f"{self.place}: {name} is missing")
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def activation(self, name: str) -> Activation:
        """Our name of the activation function that the setting `name` holds."""
        if self[name] not in ACTIVATIONS:
            raise ConversionError(
                f"{self.place}: {name} is {self[name]!r}, which is not supported{nearest(str(self[name]), ACTIVATIONS)}"
            )
        return ACTIVATIONS[self[name]]

    def only(self, **wanted: Any) -> None:
        """Raise ConversionError where a setting is there and has another value: what this package cannot compute."""
        for name, value in wanted.items():
            allowed: Sequence[Any] = value if isinstance(value, (tuple, list)) else (value,)
            if name in self and self[name] not in allowed:
                raise ConversionError(
                    f"{self.place}: {name} is {self[name]!r}; of this family only {name} = "
                    f"{' or '.join(map(repr, allowed))} can be loaded"
                )
