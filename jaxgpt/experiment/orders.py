"""Claims about an order that must show in most seeds: `NoPE > ALiBi > RoPE in 4 of 5 seeds`."""

from __future__ import annotations

import dataclasses
import itertools
import math

import scipy.stats

from jaxgpt.experiment.contrasts import Assessment, Contrast, Part
from jaxgpt.experiment.results import MissingResult, Results
from jaxgpt.experiment.statistics import CONFIDENCE, T_TEST, Interval, Method


@dataclasses.dataclass(frozen=True)
class InOrder:
    """Each contrast above the next, strictly, in at least `seeds` of the first `of` seeds.

    Supported where that many seeds show the order and chance would not (a binomial test against an order drawn at
    random among all m! orders of m contrasts); contradicted where so many show another that a share of `seeds` / `of`
    is excluded. A tie shows neither: where nothing is right anywhere, nothing was measured. The estimate is the share
    of seeds, with its exact interval (Clopper & Pearson 1934). Seeds beyond the first `of` never count, so that adding
    some after a look changes nothing.
    """

    contrasts: tuple[Contrast, ...]
    seeds: int
    of: int

    def __post_init__(self):
        if len(self.contrasts) < 2:
            raise ValueError("an order needs at least two contrasts")
        if not 1 <= self.seeds <= self.of:
            raise ValueError(f"an order in {self.seeds} of {self.of} seeds cannot be")

    def __str__(self) -> str:
        return f"{' > '.join(one.text for one in self.contrasts)} in {self.seeds} of {self.of} seeds"

    def assess(self, results: Results, method: Method = T_TEST) -> Assessment:
        """Raises MissingResult where the data lack a contrast, or seeds."""
        values = [contrast.per_seed(results)[0] for contrast in self.contrasts]
        common = sorted(set(values[0]).intersection(*values[1:]))[: self.of]
        if len(common) < self.of:
            raise MissingResult(f"{self}: {len(common)} seeds have all its results")
        pairs = list(itertools.pairwise(values))
        held = {seed: float(all(above[seed] > below[seed] for above, below in pairs)) for seed in common}
        reversed_in = sum(any(above[seed] < below[seed] for above, below in pairs) for seed in common)
        count, share = int(sum(held.values())), self.seeds / self.of
        chance = 1.0 / math.factorial(len(self.contrasts))
        support = float(scipy.stats.binom.sf(count - 1, self.of, chance)) if count >= self.seeds else 1.0
        possible = self.of - reversed_in  # seeds that may show the order, ties included
        contradict = float(scipy.stats.binom.cdf(possible, self.of, share)) if possible < self.seeds else 1.0
        part = Part(
            text=" > ".join(one.text for one in self.contrasts),
            scale="difference",
            unit="of seeds",
            bound=share,
            side=">=",
            interval=_exact(count, self.of),
            p_support=support,
            p_contradict=contradict,
            per_seed=held,
        )
        return Assessment(support, contradict, (part,), part)


def _exact(count: int, of: int) -> Interval:
    found = scipy.stats.binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return Interval(count / of, float(found.low), float(found.high), None, of)


def in_order(*contrasts: Contrast, seeds: int, of: int) -> InOrder:
    """The claim that contrasts fall from the first to the last, in at least `seeds` of `of` seeds."""
    return InOrder(contrasts, seeds, of)
