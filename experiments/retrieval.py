"""How far back can a small model find a key that is hidden in text, by positional encoding?

Models learn to find a key in windows of L tokens of the default corpus and are tried at all depths of contexts from L
to 8L, in text held out: one key, and the one of two that is asked for. Perplexity says nothing about this.
"""

from __future__ import annotations

from jaxgpt.experiment.claims import Claim, accuracy, at_least, show
from jaxgpt.experiment.spec import Variant

NEAR, FAR = "passkey_accuracy_depth_100", "passkey_accuracy_depth_0"
LABELS = {"rope": "RoPE", "alibi": "ALiBi", "nope": "NoPE"}


def base() -> dict:
    return {
        "include": ["model/laptop.yaml"],
        "data": {"type": "retrieval"},
        "evaluate": {"protocols": {"retrieval": {"multiples": [1, 2, 4, 8]}}},
    }


def variants() -> list[Variant]:
    one = [
        Variant(kind, {"model": {"position": kind}}, description="one key", label=label, panel="One key")
        for kind, label in LABELS.items()
    ]
    two = [
        Variant(
            f"{kind}-2keys",
            {"model": {"position": kind}, "data": {"needles": 2}},
            description="one of two keys",
            label=LABELS[kind],
            panel="One of two keys",
        )
        for kind in ("rope", "alibi")
    ]
    return [*one, *two]


def axes() -> list[str]:
    return ["model.position", "data.needles"]


def claims() -> list[Claim]:
    """Rules fixed before the run. There are no fixed targets, hence no context gate."""
    return [
        Claim(
            name="ALiBi cannot retrieve far",
            statement="Its accuracy falls with distance: at 2L keys at the start of the text are found less often than "
            "those at its end.",
            test=at_least(accuracy("alibi", 2, metric=NEAR) - accuracy("alibi", 2, metric=FAR), 0.0),
            headline=True,
            gate=None,
            source="strength in the literature: medium",
        ),
        Claim(
            name="how far ALiBi's accuracy falls",
            statement="The same difference at 4L, shown and not judged.",
            test=show(accuracy("alibi", 4, metric=NEAR) - accuracy("alibi", 4, metric=FAR)),
            gate=None,
        ),
        *(
            Claim(
                name=f"ALiBi against RoPE at {multiple}L, {what}",
                statement="Over all depths; shown and not judged.",
                test=show(
                    accuracy(f"alibi{suffix}", multiple, metric=metric)
                    - accuracy(f"rope{suffix}", multiple, metric=metric)
                ),
                gate=None,
            )
            for what, suffix, metric in (
                ("one key", "", "passkey_accuracy"),
                ("one of two keys", "-2keys", "needles_accuracy"),
            )
            for multiple in (1, 4)
        ),
    ]
