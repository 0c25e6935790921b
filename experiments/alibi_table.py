"""Train short, test long: which encodings keep their perplexity, for three training lengths?

The tables of Press et al. 2022 (arXiv:2108.12409): training lengths by test lengths by encodings, with non-overlapping
windows as in the paper, and with fixed targets, which are free of the penalty that early tokens pay. All arms see the
same number of tokens and are evaluated on the same text. `2L` stands for twice the scale's training length.

Another corpus: `--set data.corpus.type=text data.corpus.path=FOLDER`; `configs/data/` has WikiText-103, PG-19 and
Proof-pile as files on your disk.
"""

from __future__ import annotations

from jaxgpt.experiment import published
from jaxgpt.experiment.claims import (
    NO,
    NON_OVERLAPPING,
    Claim,
    R,
    all_of,
    at_least,
    at_most,
    nll,
    perplexity,
    show,
)
from jaxgpt.experiment.spec import Variant, times

ENCODINGS = {"sinusoidal": "sinusoidal", "rope": "RoPE", "t5": "T5", "alibi": "ALiBi"}
LENGTHS = (1, 0.5, 2)  # training lengths, in the scale's own; the first is the one that test lengths are multiples of


def base() -> dict:
    """Contexts from a quarter of the shortest training length to eight times of the scale's: the same for all arms."""
    multiples = [0.125, 0.25, 0.5, 1, 2, 4, 8]
    protocols = {"fixed_target": {"multiples": multiples}, "non_overlapping": {"multiples": multiples[2:]}}
    return {"include": ["model/laptop.yaml", "data/sotu-bpe1k.yaml"], "evaluate": {"protocols": protocols}}


def variants() -> list[Variant]:
    return [
        Variant(
            f"{kind}-{length:g}L",
            {
                "model": {"position": {"type": kind}},
                "data": {"sequence_length": times(length)},
                "train": {"batch_size": times(1 / length)},
            },
            description=f"trained on sequences of {length:g} L",
            label=f"{label} {length:g}L",
            group=label,
        )
        for length in LENGTHS
        for kind, label in ENCODINGS.items()
    ]


def axes() -> list[str]:
    return ["model.position", "data.sequence_length", "train.batch_size"]


def claims() -> list[Claim]:
    """Rules fixed before the run; in each, L is the training length of the variant named."""
    source = "Press et al. 2022, arXiv:2108.12409, tables 2 and 3"
    return [
        Claim(
            name="ALiBi trains short",
            statement="Trained at half the length, ALiBi is no worse at the whole than sinusoidal trained there.",
            test=at_most(
                perplexity("alibi-0.5L", 2, NON_OVERLAPPING) / perplexity("sinusoidal-1L", 1, NON_OVERLAPPING), 1.0
            ),
            headline=True,
            gate=("alibi-0.5L",),
            source=source,
        ),
        Claim(
            name="ALiBi stays flat",
            statement="At every training length, four times of it costs ALiBi next to nothing.",
            test=all_of(
                *(at_most(R(f"alibi-{length:g}L", 4), 1.05) for length in LENGTHS),
                *(at_most(NO(f"alibi-{length:g}L", 4), 1.02) for length in LENGTHS),
            ),
            headline=True,
            gate=tuple(f"alibi-{length:g}L" for length in LENGTHS),
            source=f"{source}; contested by Kazemnejad et al. 2023, arXiv:2305.19466",
        ),
        Claim(
            name="sinusoidal collapses",
            statement="At every training length, sinusoidal positions lose half of their perplexity and more at 4L.",
            test=all_of(*(at_least(R(f"sinusoidal-{length:g}L", 4), 1.5) for length in LENGTHS)),
            source=f"{source}; the bound is the one for small models",
        ),
        published.degrades("rope-1L"),
        published.lies_between("t5-1L", "alibi-1L"),
        Claim(
            name="ALiBi against sinusoidal at equal length",
            statement="The paper finds a tie at 1.3 billion parameters; small models say little about it.",
            test=show(nll("alibi-1L", 1) - nll("sinusoidal-1L", 1)),
            source=source,
        ),
    ]
