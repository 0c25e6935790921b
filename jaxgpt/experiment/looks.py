"""With how many seeds the verdicts of an experiment have been looked at, so that adding seeds stays honest.

`RUNS_DIR/EXPERIMENT/looks.json` keeps, for every set of arms and evaluations, the numbers of seeds that verdicts were
formed with. Numbers too few to judge are not kept: seeing no verdict invites no choice.
"""

from __future__ import annotations

from jaxgpt.config import content_hash
from jaxgpt.experiment.claims import MINIMUM_SEEDS
from jaxgpt.experiment.plan import Plan
from jaxgpt.experiment.results import Results
from jaxgpt.experiment.statistics import ALWAYS_VALID, T_TEST, Method
from jaxgpt.experiment.store import read_json
from jaxgpt.files import write_json

LOOKS = "looks.json"


def record(plan: Plan, results: Results) -> tuple[int, ...]:
    """Note that verdicts are formed from `results`; every number of seeds they were ever formed with, ascending."""
    path, key = plan.directory / LOOKS, content_hash([[arm.identity(), arm.evaluation] for arm in plan.arms], 16)
    known = read_json(path)
    seeds = max((len(results.seeds(variant)) for variant in results.variants), default=0)
    before = known.get(key, [])
    if seeds >= MINIMUM_SEEDS and seeds not in before:
        known[key] = sorted([*before, seeds])
        write_json(path, known)
    return tuple(known.get(key, []))


def method(looks: tuple[int, ...]) -> Method:
    """The t test for one look, the always-valid one for more."""
    return T_TEST if len(looks) < 2 else ALWAYS_VALID


def note(looks: tuple[int, ...]) -> list[str]:
    """What readers must know of the looks: nothing after one."""
    if len(looks) < 2:
        return []
    seeds = ", ".join(map(str, looks[:-1]))
    return [
        f"Verdicts were formed with {seeds} and {looks[-1]} seeds. Those shown come from the always-valid t test, and "
        "their intervals are always-valid ones: they hold however often seeds were added and looked at, and are wider."
    ]
