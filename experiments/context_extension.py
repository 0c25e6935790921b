"""Context extension: what do rope scalings give a model beyond its training length, untrained and briefly fine-tuned?

RoPE is trained at length L. Its weights are then read at four times L in three ways: with another rope scaling and no
training (linear interpolation, NTK, dynamic NTK, YaRN in the form of its code and in that of its paper), after further
training at 4L for a tenth of the steps (linear, YaRN, and without a scaling as control), and with YaRN's factor at 1,
which must change nothing.
"""

from __future__ import annotations

import dataclasses

from jaxgpt.experiment import published
from jaxgpt.experiment.claims import Claim, R, all_of, any_of, at_least, at_most, nll, perplexity, show
from jaxgpt.experiment.spec import Variant, share, times

FACTOR = 4.0
FINE_TUNING = {"train": {"steps": share(0.1)}, "data": {"sequence_length": times(FACTOR)}}


def base() -> dict:
    return {
        "include": ["model/laptop.yaml", "data/sotu-bpe1k.yaml"],
        "model": {"position": {"type": "rope"}},
        # Ten arms to evaluate, each compiled for every context: only what the claims are about.
        "evaluate": {"protocols": {"non_overlapping": None, "sliding": None, "by_position": None}},
    }


def variants() -> list[Variant]:
    return [
        Variant("rope", description="trained at L, read as it is", label="RoPE"),
        _untrained("linear", {"type": "linear"}, "PI s=4", "positions divided by 4"),
        _untrained("ntk", {"type": "ntk"}, "NTK s=4", "a larger base"),
        _untrained("dynamic-ntk", {"type": "dynamic_ntk"}, "dynamic NTK s=4", "a base that grows with the length"),
        _untrained("yarn", {"type": "yarn"}, "YaRN s=4", "the ramp of the authors' code, over pair indices"),
        _untrained("yarn-paper", {"type": "yarn", "ramp": "rotations"}, "YaRN s=4, paper's ramp", "over rotations"),
        _untrained("yarn-s1", {"type": "yarn", "factor": 1.0}, "YaRN s=1", "must be RoPE itself"),
        _tuned("linear-tuned", {"type": "linear"}, "PI s=4, fine-tuned"),
        _tuned("yarn-tuned", {"type": "yarn"}, "YaRN s=4, fine-tuned"),
        _tuned("rope-tuned", None, "RoPE, fine-tuned"),
    ]


def _untrained(name: str, scaling: dict, label: str, description: str) -> Variant:
    return Variant(name, {"extend": {"factor": FACTOR, **scaling}}, "rope", description, label)


def _tuned(name: str, scaling: dict | None, label: str) -> Variant:
    extension = {} if scaling is None else {"extend": {"factor": FACTOR, **scaling}}
    return Variant(name, {**extension, **FINE_TUNING}, "rope", "a tenth of the steps at 4L", label)


def claims() -> list[Claim]:
    """Rules fixed before the run. Bounds follow the published effects."""
    yarn, linear = perplexity("yarn", 4), perplexity("linear", 4)
    tuned = perplexity("yarn-tuned", 4) / perplexity("linear-tuned", 4)
    same = [perplexity("yarn-s1", multiple) / perplexity("rope", multiple) for multiple in (1, 4)]
    return [
        dataclasses.replace(published.rescues("yarn", "rope"), headline=True),
        Claim(
            name="YaRN or NTK beats PI without training",
            statement="Without training, not interpolating the fast pairs is better than interpolating all.",
            test=any_of(at_most(yarn / linear, 1.0), at_most(perplexity("ntk", 4) / linear, 1.0)),
            headline=True,
            gate=("yarn", "ntk"),
            source="Peng et al. 2023, arXiv:2309.00071; bloc97 2023; strong at 7B parameters",
        ),
        published.costs_little_at_home("yarn", "rope"),
        Claim(
            name="YaRN with s=1 is RoPE",
            statement="A factor of 1 changes nothing, at the training length and at four times it.",
            test=all_of(*[rule for one in same for rule in (at_most(one, 1 + 1e-6), at_least(one, 1 - 1e-6))]),
            source="by definition: checks the implementation",
        ),
        Claim(
            name="short fine-tuning fixes PI and YaRN",
            statement="After a tenth more steps at 4L both use the longer context without loss and hardly differ.",
            test=all_of(
                at_most(R("linear-tuned", 4), 1.0),
                at_most(R("yarn-tuned", 4), 1.0),
                at_most(tuned, 1.02),
                at_least(tuned, 1 / 1.02),
            ),
            headline=True,
            gate=("linear-tuned", "yarn-tuned"),
            source="Chen et al. 2023, arXiv:2306.15595; Peng et al. 2023, arXiv:2309.00071, table 1; strong",
        ),
        Claim(
            name="YaRN against NTK without training",
            statement="The difference at 4L, shown and not judged: small models say little about it.",
            test=show(nll("yarn", 4) - nll("ntk", 4)),
        ),
        Claim(
            name="the two ramps of YaRN",
            statement="The form of the paper against that of the code at 4L, shown and not judged.",
            test=show(nll("yarn-paper", 4) - nll("yarn", 4)),
        ),
        Claim(
            name="fine-tuning with a scaling against without",
            statement="YaRN against plain RoPE, both fine-tuned at 4L, shown and not judged.",
            test=show(nll("yarn-tuned", 4) - nll("rope-tuned", 4)),
        ),
    ]
