"""What the literature claims of positional encodings, each with the rule that judges it: functions of the arms' names.

The rules were fixed before any run. Bounds follow the published effects, or those of small models where the two differ;
contexts are multiples of the training length L. Experiments pick what their arms can answer.
"""

from __future__ import annotations

from jaxgpt.experiment.claims import NO, Claim, R, all_of, any_of, at_least, at_most, nll, perplexity, time_of

ALIBI = "Press et al. 2022, arXiv:2108.12409"
YARN = "Peng et al. 2023, arXiv:2309.00071"


def extrapolates_better(alibi: str, rope: str) -> Claim:
    return Claim(
        name="ALiBi extrapolates better than RoPE",
        statement="Going from context L to 4L costs RoPE at least 1.3 times the perplexity it costs ALiBi.",
        test=at_least(R(rope, 4) / R(alibi, 4), 1.3),
        headline=True,
        gate=(alibi,),
        source=f"{ALIBI}, table 2",
    )


def stays_flat(alibi: str) -> Claim:
    return Claim(
        name="ALiBi stays flat",
        statement="Four times the training length costs ALiBi next to nothing.",
        test=all_of(at_most(R(alibi, 4), 1.05), at_most(NO(alibi, 4), 1.02)),
        headline=True,
        gate=(alibi,),
        source=f"{ALIBI}; contested by Kazemnejad et al. 2023, arXiv:2305.19466",
    )


def degrades(rope: str) -> Claim:
    return Claim(
        name="RoPE degrades",
        statement="Without scaling, RoPE loses much of its perplexity at four times the training length.",
        test=any_of(at_least(R(rope, 4), 1.5), at_least(NO(rope, 4), 1.25)),
        source=f"{ALIBI}, table 2",
    )


def collapses(sinusoidal: str) -> Claim:
    return Claim(
        name="sinusoidal collapses",
        statement="Sinusoidal positions lose half of their perplexity and more at four times the training length.",
        test=at_least(R(sinusoidal, 4), 1.5),
        source=f"{ALIBI}, table 2; the bound is the one for small models",
    )


def lies_between(t5: str, alibi: str) -> Claim:
    return Claim(
        name="T5 lies between",
        statement="T5's buckets hold to twice the length and lose to ALiBi at eight times of it.",
        test=all_of(at_most(R(t5, 2), 1.08), at_least(R(t5, 8) / R(alibi, 8), 1.0)),
        gate=(t5,),
        source=f"{ALIBI}, table 2; medium",
    )


def is_worst_in_range(nope: str, rope: str) -> Claim:
    return Claim(
        name="NoPE is worst in range",
        statement="At the training length a model without positions is behind RoPE.",
        test=at_least(nll(nope, 1) - nll(rope, 1), 0.02),
        gate=(rope,),
        source="Haviv et al. 2022, arXiv:2203.16634, table 2",
    )


def beats_sinusoidal_out_of_range(nope: str, sinusoidal: str) -> Claim:
    return Claim(
        name="NoPE beats sinusoidal out of range",
        statement="Going to twice the training length, a model without positions loses less than a sinusoidal one.",
        test=at_most(R(nope, 2) / R(sinusoidal, 2), 1.0),
        headline=True,
        gate=(nope,),
        source="Kazemnejad et al. 2023, arXiv:2305.19466; fairly high",
    )


def is_free(alibi: str, nope: str) -> Claim:
    return Claim(
        name="ALiBi is free",
        statement="By the clock, a training step with ALiBi takes at most 1.1 times that without an encoding.",
        test=at_most(time_of(alibi) / time_of(nope), 1.1),
        gate=None,
        source=f"{ALIBI}, section 3; the shape of it only",
    )


def rescues(yarn: str, rope: str) -> Claim:
    return Claim(
        name="YaRN rescues RoPE",
        statement="At four times the training length YaRN takes at least a fifth off RoPE's perplexity, untrained.",
        test=at_most(perplexity(yarn, 4) / perplexity(rope, 4), 0.8),
        gate=(yarn,),
        source=f"{YARN}; strong at 7B parameters",
    )


def costs_little_at_home(yarn: str, rope: str) -> Claim:
    return Claim(
        name="YaRN costs little at home",
        statement="Read at the training length, the extended model loses at most a tenth of its perplexity.",
        test=at_most(perplexity(yarn, 1) / perplexity(rope, 1), 1.1),
        gate=(yarn,),
        source=f"{YARN}; medium",
    )
