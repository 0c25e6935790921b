"""How far back can a small model find a key that is hidden in text, by positional encoding?

Models learn to find a key in windows of L tokens of the default corpus and are tried at all depths
of contexts from L/2 to 4L, in text held out. Perplexity says nothing about this.
"""

from __future__ import annotations

from jaxgpt.experiment.claims import Claim, accuracy, at_least, show
from jaxgpt.experiment.spec import Variant

NEAR, FAR = "passkey_accuracy_depth_100", "passkey_accuracy_depth_0"


def base() -> dict:
    return {"include": ["model/laptop.yaml"], "data": {"type": "retrieval"}}


def variants() -> list[Variant]:
    return [
        Variant("rope", {"model": {"position": "rope"}}, description="rotary", label="RoPE"),
        Variant("alibi", {"model": {"position": "alibi"}}, description="linear biases", label="ALiBi"),
        Variant("nope", {"model": {"position": "nope"}}, description="no encoding", label="NoPE"),
    ]


def claims() -> list[Claim]:
    """Rules fixed before the run. There are no fixed targets, hence no context gate."""
    return [
        Claim(
            name="ALiBi cannot retrieve far",
            statement="At 2L ALiBi finds keys at the end of the text at least 0.2 more often than at its start.",
            test=at_least(accuracy("alibi", 2, metric=NEAR) - accuracy("alibi", 2, metric=FAR), 0.2),
            headline=True,
            gate=None,
            source="strength in the literature: medium",
        ),
        Claim(
            name="ALiBi against RoPE at L",
            statement="Over all depths; shown and not judged.",
            test=show(accuracy("alibi", 1, metric="passkey_accuracy") - accuracy("rope", 1, metric="passkey_accuracy")),
            gate=None,
        ),
    ]
