"""What does a mixture of experts gain over a dense model of as many FLOPs, and what does it lose to one of its size?

Experts are gated layers, together as large as those of a dense model four times as wide, of which a token uses a
quarter: as many FLOPs per token as the small dense model (a router costs little), as many parameters as the wide one.
Eight experts of which two are used, balanced by a loss, by corrections without one, or with places that run out; and
32 small ones of which eight are used. FLOPs are those that a token needs: the step times show what this machine makes
of them.
"""

from __future__ import annotations

from jaxgpt.experiment.claims import Claim, at_least, at_most, nll, show
from jaxgpt.experiment.spec import Variant

WIDTHS = 3.0  # hidden width of the small dense model, in widths of the model
SHAZEER = "Shazeer et al. 2017, arXiv:1701.06538"
WANG = "Wang et al. 2024, arXiv:2408.15664"


def gated(widths: float) -> dict:
    return {"type": "gated", "multiplier": widths, "multiple_of": 1}


def mixture(experts: int, used: int, router: str = "softmax", **more) -> dict:
    return {
        "type": "moe",
        "experts": experts,
        "expert": gated(WIDTHS / used),
        "router": {"type": router, "per_token": used},
        **more,
    }


def base() -> dict:
    return {"include": ["model/laptop.yaml", "data/sotu-bpe1k.yaml"], "model": {"position": {"type": "rope"}}}


def variants() -> list[Variant]:
    arms = {
        "dense": ("dense", "as many FLOPs per token as the mixtures", gated(WIDTHS)),
        "dense-wide": ("dense, four times as wide", "as many parameters as the mixtures", gated(4 * WIDTHS)),
        "moe": ("2 of 8 experts", "balanced by a loss", mixture(8, 2)),
        "moe-free": ("2 of 8, corrected", "balanced without a loss", mixture(8, 2, "sigmoid", balance_loss=0.0)),
        "moe-dropping": ("2 of 8, places run out", "experts drop what is too much", mixture(8, 2, capacity=1.0)),
        "moe-fine": ("8 of 32 experts", "a quarter as wide", mixture(32, 8)),
    }
    return [
        Variant(name, {"model": {"feedforward": layer}}, description=text, label=label)
        for name, (label, text, layer) in arms.items()
    ]


def axes() -> list[str]:
    return ["model.feedforward"]


def claims() -> list[Claim]:
    """Rules fixed before the run."""
    return [
        Claim(
            name="experts beat a dense model of as many FLOPs",
            statement="At the training length the mixture is at least 0.02 nats ahead of the small dense model.",
            test=at_least(nll("dense", 1) - nll("moe", 1), 0.02),
            headline=True,
            gate=("moe",),
            source=f"{SHAZEER}, section 5.1",
        ),
        Claim(
            name="experts lose to a dense model of as many parameters",
            statement="The dense model that uses all of as many parameters for every token is not behind the mixture.",
            test=at_least(nll("moe", 1) - nll("dense-wide", 1), 0.0),
            gate=("dense-wide",),
            source="Clark et al. 2022, arXiv:2202.01169, section 3",
        ),
        Claim(
            name="balance without a loss costs nothing",
            statement="Corrections are no more than 0.02 nats behind a balancing loss.",
            test=at_most(nll("moe-free", 1) - nll("moe", 1), 0.02),
            gate=("moe-free",),
            source=f"{WANG}, table 2",
        ),
        *(
            Claim(name=name, statement="Shown and not judged.", test=show(nll(one, 1) - nll("moe", 1)))
            for name, one in (
                ("what dropping costs", "moe-dropping"),
                ("small experts against large ones", "moe-fine"),
            )
        ),
    ]
