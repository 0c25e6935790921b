"""With how many seeds verdicts have been looked at, so that adding seeds stays honest.

`RUNS_DIR/EXPERIMENT/looks.json` keeps, for every claim and the arms it is about, the numbers of seeds that its verdict
was formed with. Numbers too few to judge are not kept: seeing no verdict invites no choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxgpt.config import content_hash
from jaxgpt.experiment.claims import MINIMUM_SEEDS, Claim
from jaxgpt.experiment.plan import Plan
from jaxgpt.experiment.results import MissingResult, Results
from jaxgpt.experiment.statistics import ALWAYS_VALID, Method
from jaxgpt.experiment.store import read_json
from jaxgpt.files import write_json

LOOKS = "looks.json"

Looks = Mapping[str, Sequence[int]]
"""Claim -> every number of seeds it was ever judged with, ascending."""


def record(plan: Plan, results: Results) -> Looks:
    """Note that verdicts are formed from `results`, and return all looks so far."""
    path = plan.directory / LOOKS
    known, found = read_json(path), {}
    for claim in plan.experiment.claims:
        key, seeds = _key(claim, plan), _seeds(claim, results)
        before = known.get(key, [])
        if seeds >= MINIMUM_SEEDS and seeds not in before:
            known[key] = before = sorted([*before, seeds])
        if before:
            found[claim.name] = before
    if found:
        write_json(path, known)
    return found


def _key(claim: Claim, plan: Plan) -> str:
    """Equal where the same rule is about the same arms, however many seeds there are and whatever else is evaluated."""
    about = {variant for contrast in claim.test.contrasts for _, (variant, _, _) in contrast.terms}
    return content_hash([claim.rule, [arm.identity() for arm in plan.arms if arm.name in about]], 16)


def _seeds(claim: Claim, results: Results) -> int:
    """The number of seeds that the claim is judged with; 0 where it cannot be, or never is."""
    if not claim.judged:
        return 0
    try:
        return claim.test.assess(results).seeds
    except MissingResult:
        return 0


def methods(looks: Looks) -> dict[str, Method]:
    """The always-valid test for claims that were looked at more than once."""
    return {claim: ALWAYS_VALID for claim, seeds in looks.items() if len(seeds) > 1}


def note(looks: Looks) -> list[str]:
    """What readers must know of the looks: nothing after one."""
    again = {claim: seeds for claim, seeds in looks.items() if len(seeds) > 1}
    if not again:
        return []
    numbers = sorted({number for seeds in again.values() for number in seeds})
    of = "Verdicts" if len(again) == len(looks) else f"The verdicts on {'; '.join(again)}"
    return [
        f"{of} were formed with {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} seeds. Those shown come from the "
        "always-valid t test, and their intervals are always-valid ones: they hold however often seeds were added and "
        "looked at, and are wider."
    ]
