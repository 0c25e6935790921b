"""RoPE or ALiBi: which keeps its perplexity when the context grows beyond the training length?

Four encodings are trained alike, on the same batches from the same initial weights, and evaluated with contexts from a
quarter of the training length L to sixteen times L. A fifth arm, YaRN, is the trained RoPE model with its frequencies
scaled by 4 and no further training.
"""

from __future__ import annotations

from jaxgpt.experiment import published
from jaxgpt.experiment.claims import Claim, nll, show
from jaxgpt.experiment.spec import Variant


def base() -> dict:
    return {"include": ["model/laptop.yaml", "data/sotu-bpe1k.yaml"]}


def variants() -> list[Variant]:
    return [
        Variant("rope", {"model": {"position": {"type": "rope"}}}, description="rotary", label="RoPE"),
        Variant("alibi", {"model": {"position": {"type": "alibi"}}}, description="linear biases", label="ALiBi"),
        Variant(
            "sinusoidal",
            {"model": {"position": {"type": "sinusoidal"}}},
            description="added sines and cosines",
            label="sinusoidal",
        ),
        Variant("nope", {"model": {"position": {"type": "nope"}}}, description="no encoding", label="NoPE"),
        Variant(
            "yarn",
            {"model": {"position": {"type": "rope", "scaling": {"type": "yarn", "factor": 4.0}}}},
            parent="rope",
            description="the rope weights, frequencies scaled by 4, untrained",
            label="YaRN s=4",
        ),
    ]


def axes() -> list[str]:
    return ["model.position"]


def claims() -> list[Claim]:
    """Rules fixed before the run."""
    return [
        published.extrapolates_better("alibi", "rope"),
        published.stays_flat("alibi"),
        published.degrades("rope"),
        published.collapses("sinusoidal"),
        published.rescues("yarn", "rope"),
        published.is_worst_in_range("nope", "rope"),
        Claim(
            name="ALiBi against RoPE in range",
            statement="The difference at the training length, shown and not judged: small models say little about it.",
            test=show(nll("alibi", 1) - nll("rope", 1)),
        ),
    ]
