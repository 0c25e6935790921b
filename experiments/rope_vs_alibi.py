"""RoPE or ALiBi: which keeps its perplexity when the context grows beyond the training length?

Four encodings are trained alike, on the same batches from the same initial weights, and evaluated with contexts from a
quarter of the training length L to sixteen times L. A fifth arm, YaRN, is the trained RoPE model with its frequencies
scaled by 4 and no further training.
"""

from __future__ import annotations

from jaxgpt.experiment.claims import NO, Claim, R, all_of, any_of, at_least, at_most, nll, perplexity, show
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


def claims() -> list[Claim]:
    """Rules fixed before the run. Bounds follow the published effects, those of small models where the two differ."""
    return [
        Claim(
            name="ALiBi extrapolates better than RoPE",
            statement="Going from context L to 4L costs RoPE at least 1.3 times the perplexity it costs ALiBi.",
            test=at_least(R("rope", 4) / R("alibi", 4), 1.3),
            headline=True,
            gate=("alibi",),
            source="Press et al. 2022, arXiv:2108.12409, table 2",
        ),
        Claim(
            name="ALiBi stays flat",
            statement="Four times the training length costs ALiBi next to nothing.",
            test=all_of(at_most(R("alibi", 4), 1.05), at_most(NO("alibi", 4), 1.02)),
            headline=True,
            gate=("alibi",),
            source="Press et al. 2022, arXiv:2108.12409; contested by Kazemnejad et al. 2023, arXiv:2305.19466",
        ),
        Claim(
            name="RoPE degrades",
            statement="Without scaling, RoPE loses much of its perplexity at four times the training length.",
            test=any_of(at_least(R("rope", 4), 1.5), at_least(NO("rope", 4), 1.25)),
            source="Press et al. 2022, arXiv:2108.12409, table 2",
        ),
        Claim(
            name="sinusoidal collapses",
            statement="Sinusoidal positions lose even more.",
            test=at_least(R("sinusoidal", 4), 1.5),
            source="Press et al. 2022, arXiv:2108.12409, table 2; the bound is the one for small models",
        ),
        Claim(
            name="YaRN rescues RoPE",
            statement="Scaling the frequencies of the trained model, without training, repairs much of it.",
            test=at_most(perplexity("yarn", 4) / perplexity("rope", 4), 0.8),
            gate=("yarn",),
            source="Peng et al. 2023, arXiv:2309.00071",
        ),
        Claim(
            name="NoPE is worst in range",
            statement="At the training length a model without positions is behind RoPE.",
            test=at_least(nll("nope", 1) - nll("rope", 1), 0.02),
            gate=("rope",),
            source="Haviv et al. 2022, arXiv:2203.16634, table 2",
        ),
        Claim(
            name="ALiBi against RoPE in range",
            statement="The difference at the training length, shown and not judged: small models say little about it.",
            test=show(nll("alibi", 1) - nll("rope", 1)),
        ),
    ]
