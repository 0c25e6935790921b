"""What is measured of every run."""

from __future__ import annotations

import dataclasses

from jaxgpt.data.dataset import DataConfig
from jaxgpt.data.sources.text import TextDataConfig
from jaxgpt.evaluate.ngram import NgramConfig
from jaxgpt.evaluate.protocols.base import ProtocolConfig
from jaxgpt.registry import lookup


def default_protocols(data: type[DataConfig] = TextDataConfig) -> dict[str, ProtocolConfig | None]:
    """The protocols of a kind of data, those of text unless another is given, at the size of a laptop run."""
    return {kind: lookup(ProtocolConfig, kind, "evaluate.protocols")() for kind in data.protocols}


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """All that an evaluation depends on beside the model and the data.

    At a training length L one evaluation reads about 2,200 L tokens (284,000 at L = 128), two thirds of them for the
    fixed targets: 16 s of one core for 4 layers of width 128, and 13 s of compilation the first time.
    """

    protocols: dict[str, ProtocolConfig | None] = dataclasses.field(default_factory=default_protocols)  # null: left out
    ngram: NgramConfig | None = NgramConfig()  # the baseline printed beside the models; null: none
    max_tokens_per_batch: int = 2048  # rows * tokens scored at once; fits a CPU's cache, accelerators want more

    def __post_init__(self) -> None:
        if self.max_tokens_per_batch < 1:
            raise ValueError("max_tokens_per_batch must be at least 1")
        types = [type(protocol) for protocol in self.active().values()]
        if len(set(types)) < len(types):
            raise ValueError("protocols: the same type twice would give two measurements one name")

    def active(self) -> dict[str, ProtocolConfig]:
        """The protocols that are not left out."""
        return {name: protocol for name, protocol in self.protocols.items() if protocol is not None}


def default_evaluation(data: type[DataConfig]) -> EvaluationConfig:
    """What is measured on a kind of data where nothing else is said."""
    return EvaluationConfig(default_protocols(data), NgramConfig() if data.baseline else None)
