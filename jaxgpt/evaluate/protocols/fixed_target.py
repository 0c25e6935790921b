"""Fixed target: the same tokens, predicted from more and more context. The primary protocol."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgpt.data.dataset import Dataset
from jaxgpt.data.tokens import TokenSplit, require_document_lengths
from jaxgpt.errors import ConfigError
from jaxgpt.evaluate.protocols.base import Measurement, ProtocolConfig, averages, by_document, losses, text_of
from jaxgpt.evaluate.scorer import Scorer
from jaxgpt.evaluate.spans import contexts_of, document_stops, quarter, windows
from jaxgpt.registry import register

PATH = "evaluate.protocols.fixed_target"


@register("fixed_target")
@dataclasses.dataclass(frozen=True)
class FixedTargetConfig(ProtocolConfig):
    """The same last tokens at several places of each document; only the number of tokens before them changes.

    At context c a row holds c input tokens, all of one document, at positions 0 to c - 1: a row at c = L (the training
    length) is what training saw. The losses of its last `targets` predictions are averaged; they see c - targets + 1
    to c tokens. As the targets are the same at every context, differences between contexts are paired. Where c is well
    above `targets`, no token is scored with the short context at the start of a window (the early-token effect of Press
    et al. 2022, arXiv:2108.12409); at c = `targets` the whole window is scored, and part of what longer contexts gain
    on it is that effect: a 5-gram gains, too. Places are spread evenly over the documents that hold the longest
    context, and evenly within them.

    Metrics: `fixed_target_nll` (nats/token) and `fixed_target_bits_per_byte` (bits/byte).
    """

    multiples: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # contexts, in training lengths
    places: int = 48  # in all documents together
    targets: int | None = None  # tokens scored at each place; None: L/4, or the shortest context where that is less
    documents: int = 1  # fewer long documents than this are an error

    def __post_init__(self) -> None:
        if not self.multiples:
            raise ValueError("multiples must name at least one context")
        if self.places < 1 or self.documents < 1 or (self.targets is not None and self.targets < 1):
            raise ValueError("places, targets and documents must be at least 1")

    def contexts(self, train_length: int) -> list[int]:
        """Contexts in tokens, ascending. ConfigError if one is no whole number or shorter than the targets."""
        contexts = contexts_of(self.multiples, train_length, f"{PATH}.multiples")
        if self.targets is not None and self.targets > contexts[0]:
            raise ConfigError(
                f"{PATH}.targets: {self.targets} tokens cannot be scored in the shortest context of {contexts[0]}; "
                f"set {PATH}.targets={contexts[0]} or less"
            )
        return contexts

    def scored(self, train_length: int) -> int:
        """Tokens scored at each place."""
        return self.targets or min(quarter(None, train_length), self.contexts(train_length)[0])

    def stops(self, split: TokenSplit, train_length: int) -> np.ndarray:
        """Where the places end, as indices into `split.tokens` just behind their last target, int64 `[places]`."""
        needed = self.contexts(train_length)[-1] + 1
        require_document_lengths(split, needed, self.documents, "evaluation with fixed targets")
        return document_stops(split.offsets, needed, self.scored(train_length), self.places, f"{PATH}.places")

    def check(self, dataset: Dataset, train_length: int) -> None:
        split = text_of(dataset, "fixed_target").validation
        self.stops(split, train_length)

    def run(self, scorer: Scorer, dataset: Dataset, train_length: int) -> list[Measurement]:
        split, byte_lengths = text_of(dataset, "fixed_target").validation, dataset.tokenizer.byte_lengths
        stops, targets = self.stops(split, train_length), self.scored(train_length)
        measurements = []
        for context in self.contexts(train_length):
            inputs_RT, targets_RT = windows(split.tokens, stops, context)
            losses_RK = losses("fixed_target", scorer, inputs_RT, targets_RT, targets)
            if losses_RK is not None:
                bytes_RK = byte_lengths[targets_RT[:, -targets:]]
                documents = by_document(split, stops, losses_RK)
                measurements += averages("fixed_target", context, losses_RK, bytes_RK, documents)
        return measurements
