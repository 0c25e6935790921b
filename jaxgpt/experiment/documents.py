"""How much of a difference hangs on the documents that happened to be held out: a bootstrap over documents.

The interval over seeds says how far training varies; it holds the evaluation text fixed. Here the seeds are held fixed
and the documents are drawn anew, with replacement, whole: tokens of one document are not independent. The two
intervals answer different questions and are shown apart; verdicts come from seeds alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxgpt.experiment.claims import Claim
from jaxgpt.experiment.contrasts import Contrast
from jaxgpt.experiment.results import DocumentLoss, MissingResult, Results

DRAWS = 2000
SEED = 0
FEWEST = 5  # documents: a bootstrap over fewer says nothing


@dataclasses.dataclass(frozen=True)
class Noise:
    """A contrast with the interval that drawing the documents anew gives it. Ratios as ratios."""

    text: str
    estimate: float
    low: float
    high: float
    documents: int


class DocumentLosses:
    """Losses by document, for looking up contrasts. All measurements of a contrast must be of the same documents."""

    def __init__(self, losses: Iterable[DocumentLoss]):
        self._found: dict[tuple[str, str, int], dict[int, dict[int, tuple[float, int]]]] = {}
        for one in losses:
            by_seed = self._found.setdefault((one.variant, one.metric, one.context), {})
            by_seed.setdefault(one.seed, {})[one.document] = (one.value, one.tokens)

    def noise(self, contrast: Contrast, results: Results, draws: int = DRAWS) -> Noise:
        """The bootstrap of a contrast's mean over seeds, 95% percentile interval.

        Raises:
          MissingResult: a term was not kept by document, its documents differ, or they are too few.
        """
        per_seed, _ = contrast.per_seed(results)
        tables = [self._table(*quantity, results, list(per_seed)) for _, quantity in contrast.terms]
        documents = [found for found, _, _ in tables]
        if any(found != documents[0] for found in documents):
            raise MissingResult(f"{contrast.text}: its terms were measured on different documents")
        count = len(documents[0])
        if count < FEWEST:
            raise MissingResult(f"{contrast.text}: {count} documents are too few to draw from")
        random = np.random.default_rng(SEED)
        chosen_ND = random.multinomial(count, np.full(count, 1 / count), size=draws)
        drawn_N = np.zeros(draws)
        for (weight, _), (_, totals_SD, tokens_SD) in zip(contrast.terms, tables, strict=True):
            means_NS = (chosen_ND @ totals_SD.T) / (chosen_ND @ tokens_SD.T)
            drawn_N += weight * means_NS.mean(axis=1)
        estimate = float(np.mean(list(per_seed.values())))
        low, high = (float(value) for value in np.quantile(drawn_N, (0.025, 0.975)))
        shown = [float(np.exp(min(v, 700.0))) for v in (estimate, low, high)]
        if contrast.scale == "difference":
            shown = [estimate, low, high]
        return Noise(contrast.text, *shown, documents=count)

    def _table(
        self, variant: str, metric: str, multiple, results: Results, seeds: Sequence[int]
    ) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Document numbers, and per seed and document the sum of losses and the number of tokens, float64 [S, D]."""
        context = int(multiple * results.length(variant))
        by_seed = self._found.get((variant, metric, context), {})
        if variant in results.given and by_seed:  # measured once, for all seeds
            by_seed = dict.fromkeys(seeds, next(iter(by_seed.values())))
        if any(seed not in by_seed for seed in seeds):
            raise MissingResult(f"{variant}: {metric} at context {context} was not kept by document")
        documents = sorted(by_seed[seeds[0]])
        if any(sorted(by_seed[seed]) != documents for seed in seeds):
            raise MissingResult(f"{variant}: {metric} at context {context}: seeds were measured on different documents")
        pairs = np.array([[by_seed[seed][document] for document in documents] for seed in seeds], np.float64)
        return documents, pairs[:, :, 0], pairs[:, :, 1]


def evaluation_noise(claims: Sequence[Claim], losses: DocumentLosses, results: Results) -> list[Noise]:
    """The noise of every contrast that the claims are about and whose losses were kept by document, each once."""
    found: dict[str, Noise] = {}
    for claim in claims:
        for contrast in claim.test.contrasts:
            if contrast.text in found:
                continue
            try:
                found[contrast.text] = losses.noise(contrast, results)
            except MissingResult:
                continue
    return list(found.values())
