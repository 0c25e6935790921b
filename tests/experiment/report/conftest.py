"""A report on synthetic results, complete in all its parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from jaxgpt.experiment.claims import (
    NO,
    Claim,
    R,
    all_of,
    any_of,
    at_least,
    at_most,
    evaluate_claims,
    nll,
    show,
)
from jaxgpt.experiment.report import Curve, Report
from jaxgpt.experiment.results import Results, Timing

CLAIMS = [
    Claim("home", "RoPE against ALiBi in range.", show(nll("rope", 1) - nll("alibi", 1))),
    Claim(
        "headline",
        "RoPE degrades at least 1.3 times as much as ALiBi.",
        at_least(R("rope", 4) / R("alibi", 4), 1.3),
        headline=True,
        gate=("alibi",),
        source="Press et al. 2022",
    ),
    Claim("flat", "ALiBi stays flat.", all_of(at_most(R("alibi", 4), 1.05), at_most(NO("alibi", 4), 1.02)), True),
    Claim("rises", "RoPE <rises> & falls | by turns.", any_of(at_least(R("rope", 4), 9), at_least(R("rope", 8), 9))),
    Claim("t5", "Never measured.", at_most(R("t5", 4), 1.08)),
]


@pytest.fixture
def make_report(trial: Callable[..., Results]) -> Callable[..., Report]:
    """Builds a report over `seeds` seeds; other arguments replace its parts."""

    def make(seeds: int = 3, **parts) -> Report:
        results = parts.pop("results", None) or trial(seeds=seeds)
        random = np.random.default_rng(1)
        steps = np.arange(10, 301, 10)
        curves, timings = [], []
        for variant, end in (("rope", 3.2), ("alibi", 3.45), ("sinusoidal", 3.5), ("nope", 3.8)):
            for seed in range(seeds):
                loss = end + 3.6 * np.exp(-steps / 45) + random.normal(0, 0.03, len(steps))
                checks = [(step, step * 4096, end + 3.6 * float(np.exp(-step / 45))) for step in (100, 200, 300)]
                curves.append(Curve(variant, seed, steps.tolist(), (steps * 4096).tolist(), loss.tolist(), checks))
                timings.append(Timing(variant, seed, "step_time", 310.0 + seed, "ms"))
        whole = {
            "experiment": "trial",
            "title": "RoPE or ALiBi beyond the training length?",
            "results": results,
            "verdicts": evaluate_claims(CLAIMS, results),
            "curves": curves,
            "timings": timings,
            "runs": [{"variant": name, "parameters": 921344, "learning_rate": 2e-3} for name in results.variants],
            "facts": {"scale": "laptop", "seeds": seeds},
            "labels": {"rope": "RoPE", "alibi": "ALiBi"},
            "command": "python experiments/run.py --exp trial",
            "notes": ["t5-seed0 is not finished: failed"],
        }
        return Report(**(whole | parts))

    return make


@pytest.fixture
def claims() -> list[Claim]:
    """Those of the report that `make_report` makes."""
    return CLAIMS
