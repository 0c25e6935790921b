"""Which positional encoding lets a small model carry what it learned on short sequences over to longer ones?

Models learn synthetic tasks at lengths from 1 to L = 20 and are tried at up to 2L: copying random symbols with four
encodings, five more tasks with the two that differ most. What is measured is the share of answers that are right to the
last symbol. Parity and addition vary too much from seed to seed to be judged: they are reported.
"""

from __future__ import annotations

from jaxgpt.experiment.claims import Claim, accuracy, all_of, at_least, at_most, show
from jaxgpt.experiment.contrasts import EXACT_MATCH
from jaxgpt.experiment.orders import in_order
from jaxgpt.experiment.spec import Variant

ENCODINGS = {
    "nope": ("NoPE", {"type": "nope"}),
    "alibi": ("ALiBi", {"type": "alibi"}),
    "rope": ("RoPE", {"type": "rope"}),
    "t5": ("T5", {"type": "t5", "max_distance": 32}),
}
TASKS = {
    "copy": ("Copying", {"type": "copy"}, tuple(ENCODINGS)),
    "reverse": ("Reversing", {"type": "reverse"}, ("nope", "rope")),
    "sorting": ("Sorting", {"type": "sorting"}, ("nope", "rope")),
    "mqar": ("Recall of 4 pairs by distance", {"type": "mqar", "pairs": 4, "keys": 16}, ("nope", "rope")),
    "addition": ("Addition, lowest digit first", {"type": "addition", "reversed": True}, ("nope", "rope")),
    "parity": ("Parity (chance 0.5)", {"type": "parity"}, ("nope", "rope")),
}
BEYOND = (1.25, 1.5, 1.75, 2.0)  # lengths that training never saw, in L
SYMBOLS = "task_token_accuracy"
SOURCE = "Kazemnejad et al. 2023, arXiv:2305.19466"


def base() -> dict:
    return {"include": ["model/laptop.yaml"], "data": {"type": "task", "max_length": 20}}


def variants() -> list[Variant]:
    found = []
    for task, (panel, settings, encodings) in TASKS.items():
        for encoding in encodings:
            label, position = ENCODINGS[encoding]
            overrides = {"data": {"task": settings}, "model": {"position": position}}
            found.append(Variant(f"{task}-{encoding}", overrides, description=panel, label=label, panel=panel))
    return found


def axes() -> list[str]:
    return ["data.task", "model.position"]


def beyond(variant: str, metric: str = EXACT_MATCH):
    """Mean share right over the lengths that training never saw: of whole answers, or of their symbols."""
    return accuracy(variant, *BEYOND, metric=metric)


def claims() -> list[Claim]:
    """Rules fixed before the run. There are no fixed targets, hence no context gate."""
    return [
        Claim(
            name="NoPE copies best beyond the training length",
            statement="Copying random symbols at 1.25L to 2L, NoPE is ahead of ALiBi and ALiBi of RoPE.",
            test=in_order(beyond("copy-nope"), beyond("copy-alibi"), beyond("copy-rope"), seeds=4, of=5),
            headline=True,
            gate=None,
            source=f"{SOURCE}; exploratory",
        ),
        Claim(
            name="copying is learned in range",
            statement="At L/2 every encoding copies nine examples in ten, without which the other claims say little.",
            test=all_of(*(at_least(accuracy(f"copy-{encoding}", 0.5), 0.9) for encoding in ENCODINGS)),
            gate=None,
        ),
        Claim(
            name="RoPE does not copy twice the length",
            statement="At 2L RoPE copies at most one example in ten.",
            test=at_most(accuracy("copy-rope", 2), 0.1),
            gate=None,
            source=SOURCE,
        ),
        *(
            Claim(
                name=f"Copying: {ENCODINGS[one][0]} against {ENCODINGS[other][0]} beyond L, single symbols",
                statement="Where no whole answer is right, some of its symbols may be. Shown and not judged.",
                test=show(beyond(f"copy-{one}", SYMBOLS) - beyond(f"copy-{other}", SYMBOLS)),
                gate=None,
            )
            for one, other in (("alibi", "nope"), ("nope", "rope"))
        ),
        *(
            Claim(
                name=f"{TASKS[task][0]}: NoPE against RoPE beyond L",
                statement="Shown and not judged.",
                test=show(beyond(f"{task}-nope") - beyond(f"{task}-rope")),
                gate=None,
            )
            for task in ("reverse", "sorting", "mqar", "addition", "parity")
        ),
    ]
