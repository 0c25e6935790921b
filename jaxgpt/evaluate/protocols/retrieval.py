"""Accuracy of finding a key in text, by depth and by context."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.dataset import Dataset
from jaxgpt.data.sources.retrieval import RetrievalDataset
from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.protocols.base import Measurement, ProtocolConfig, hits
from jaxgpt.evaluate.scorer import Scorer
from jaxgpt.evaluate.spans import contexts_of
from jaxgpt.registry import register

PATH = "evaluate.protocols.retrieval"


@register("retrieval")
@dataclasses.dataclass(frozen=True)
class RetrievalProtocolConfig(ProtocolConfig):
    """Keys hidden in validation text at some depths of contexts of some lengths, the same for every model.

    A key is found where the most likely token is right for every token of it: where greedy decoding would write it.

    Metrics: `passkey_accuracy_depth_25` for a depth of 25% and `passkey_accuracy`, the mean over depths (share);
    `needles_accuracy...` where several keys are hidden. The context is in tokens, question and answer included.
    """

    multiples: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)  # contexts, in training lengths
    depths: tuple[int, ...] = (0, 25, 50, 75, 100)  # percent of the text before the question
    examples: int = 40  # at each depth and context

    def __post_init__(self) -> None:
        if not self.multiples or not self.depths or self.examples < 1:
            raise ValueError("needs at least one multiple, depth and example")
        if min(self.depths) < 0 or max(self.depths) > 100:
            raise ValueError("depths must lie between 0 and 100")

    def check(self, dataset: Dataset, train_length: int) -> None:
        found = _keys_in(dataset)
        for context in contexts_of(self.multiples, train_length, f"{PATH}.multiples"):
            found.examples(context, 0.0, 1)

    def run(self, scorer: Scorer, dataset: Dataset, train_length: int) -> list[Measurement]:
        dataset, measurements = _keys_in(dataset), []
        name = "passkey" if dataset.config.needles == 1 else "needles"
        for context in contexts_of(self.multiples, train_length, f"{PATH}.multiples"):
            shares = []
            for depth in self.depths:
                batch = dataset.examples(context, depth / 100, self.examples)
                asked_RT = batch["weights"] > 0
                last = int(asked_RT.sum(axis=1).max())
                hits_RK = hits("retrieval", scorer, batch["inputs"], batch["targets"], last)
                if hits_RK is None:
                    break
                shares.append(float((hits_RK | ~asked_RT[:, -last:]).all(axis=1).mean()))
                measurements.append(Measurement(f"{name}_accuracy_depth_{depth}", context, shares[-1], "share"))
            if shares:
                measurements.append(Measurement(f"{name}_accuracy", context, float(np.mean(shares)), "share"))
        return measurements


def _keys_in(dataset: Dataset) -> RetrievalDataset:
    if not isinstance(dataset, RetrievalDataset):
        raise ConfigError(f"{PATH}: needs text with keys in it (data.type: retrieval); set {PATH}=null")
    return dataset
