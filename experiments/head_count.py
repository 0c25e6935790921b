"""Does ALiBi keep its perplexity for every number of heads, powers of two or not?

ALiBi's slopes are a geometric series where the number of heads is a power of two; for other numbers the authors' code
adds every second slope of the next power, so that heads are spaced unevenly. The model's width and the width of all
heads together stay the same; more heads are narrower.
"""

from __future__ import annotations

from jaxgpt.experiment.claims import NO, Claim, R, all_of, at_most, nll, show
from jaxgpt.experiment.spec import Variant

POWERS, OTHERS = (2, 4, 8), (3, 6, 12)
WIDTH = 96  # divisible by all of them


def base() -> dict:
    return {"include": ["model/laptop.yaml", "data/sotu-bpe1k.yaml"], "model": {"position": {"type": "alibi"}}}


def variants() -> list[Variant]:
    return [
        Variant(
            f"alibi-{heads}",
            {"model": {"num_heads": heads, "width": WIDTH}},
            description=f"{heads} heads of width {WIDTH // heads}",
            label=f"{heads} heads",
        )
        for heads in sorted((*POWERS, *OTHERS))
    ]


def axes() -> list[str]:
    return ["model.num_heads"]


def claims() -> list[Claim]:
    """Rules fixed before the run."""
    source = "Press et al. 2022, arXiv:2108.12409, section 3, and the authors' code"
    return [
        Claim(
            name="flat for powers of two",
            statement="Four times the training length costs ALiBi next to nothing with 2, 4 and 8 heads.",
            test=all_of(*_flat(POWERS)),
            headline=True,
            gate=_names(POWERS),
            source=source,
        ),
        Claim(
            name="flat for other numbers of heads",
            statement="It costs next to nothing with 3, 6 and 12 heads either.",
            test=all_of(*_flat(OTHERS)),
            headline=True,
            gate=_names(OTHERS),
            source=source,
        ),
        Claim(
            name="other numbers of heads cost nothing in range",
            statement="3 and 6 heads are no more than 0.02 nats behind the powers of two on either side.",
            test=all_of(
                *(
                    at_most(nll(f"alibi-{heads}", 1) - nll(f"alibi-{neighbour}", 1), 0.02)
                    for heads, neighbours in ((3, (2, 4)), (6, (4, 8)))
                    for neighbour in neighbours
                )
            ),
            gate=_names((3, 6)),
            source="no publication says so; what the authors' rule for slopes implies",
        ),
        Claim(
            name="many against few heads",
            statement="The difference of 12 heads to 2 at the training length, shown and not judged.",
            test=show(nll("alibi-12", 1) - nll("alibi-2", 1)),
        ),
    ]


def _names(counts: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"alibi-{heads}" for heads in counts)


def _flat(counts: tuple[int, ...]) -> list:
    return [at_most(ratio(name, 4), bound) for name in _names(counts) for ratio, bound in ((R, 1.05), (NO, 1.02))]
