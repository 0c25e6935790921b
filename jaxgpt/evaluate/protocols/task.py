"""Accuracy on a synthetic task, by length."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.dataset import Dataset
from jaxgpt.data.sources.task import TaskDataset
from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.protocols.base import Measurement, ProtocolConfig, hits
from jaxgpt.evaluate.scorer import Scorer
from jaxgpt.evaluate.spans import contexts_of
from jaxgpt.registry import register

PATH = "evaluate.protocols.task"


@register("task")
@dataclasses.dataclass(frozen=True)
class TaskProtocolConfig(ProtocolConfig):
    """Examples of each length, the same for every model; each token of the answer is held against the most likely one.

    Predictions are made with the true answer up to that token before them (teacher forcing). An example is right where
    all tokens of its answer are, which is just where greedy decoding would write the whole answer. The share of right
    tokens, unlike that of right examples, is not what decoding would reach: it forgives errors that decoding goes on
    from.

    Metrics: `task_exact_match` and `task_token_accuracy` (share), their context being the length of the task, in
    multiples of the greatest one that training saw.
    """

    multiples: tuple[float, ...] = (0.5, 1.0, 1.25, 1.5, 1.75, 2.0)  # lengths, in `data.max_length`
    examples: int = 200  # of each length

    def __post_init__(self) -> None:
        if not self.multiples or self.examples < 1:
            raise ValueError("needs at least one multiple and one example")

    def lengths(self, dataset: TaskDataset, train_length: int) -> list[int]:
        """Lengths measured, ascending. ConfigError where one is no whole number, or longer than the task allows."""
        lengths = contexts_of(self.multiples, train_length, f"{PATH}.multiples")
        longest = dataset.config.task.longest()
        if longest is not None and lengths[-1] > longest:
            raise ConfigError(
                f"{PATH}.multiples: the task has symbols for lengths up to {longest}, not for {lengths[-1]}; give it "
                "more, or smaller multiples"
            )
        return lengths

    def check(self, dataset: Dataset, train_length: int) -> None:
        self.lengths(_task_of(dataset), train_length)

    def run(self, scorer: Scorer, dataset: Dataset, train_length: int) -> list[Measurement]:
        dataset, measurements = _task_of(dataset), []
        for length in self.lengths(dataset, train_length):
            batch = dataset.examples(length, self.examples)
            asked_RT = batch["weights"] > 0
            last = asked_RT.shape[1] - int(np.argmax(asked_RT.any(axis=0)))
            hits_RK = hits("task", scorer, batch["inputs"], batch["targets"], last)
            if hits_RK is not None:
                asked_RK = asked_RT[:, -last:]
                exact, tokens = (hits_RK | ~asked_RK).all(axis=1), hits_RK[asked_RK]
                measurements.append(Measurement("task_exact_match", length, float(exact.mean()), "share"))
                measurements.append(Measurement("task_token_accuracy", length, float(tokens.mean()), "share"))
        return measurements


def _task_of(dataset: Dataset) -> TaskDataset:
    if not isinstance(dataset, TaskDataset):
        raise ConfigError(f"{PATH}: needs the examples of a synthetic task (data.type: task); set {PATH}=null")
    return dataset
