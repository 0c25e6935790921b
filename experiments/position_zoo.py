"""Every positional encoding that is registered: which predicts best in range, and which beyond?

One arm per kind in `jaxgpt/nn/position/`, found by name, so that a new file is a new arm; KERPLE also in its power
form, attention kinds that find positions in the content (FoX, CoPE), and RoPE with scores that grow with the logarithm
of the context (SSMax). Learning rates are chosen per arm first, for a rank that a rate decides says nothing. The report
ranks the arms at the training length and at four times of it.
"""

from __future__ import annotations

import re

from jaxgpt.config import encode
from jaxgpt.experiment import published
from jaxgpt.experiment.claims import Claim, nll, show
from jaxgpt.experiment.spec import Tuning, Variant
from jaxgpt.nn.position.base import PositionConfig
from jaxgpt.registry import kinds


def base() -> dict:
    return {"include": ["model/laptop.yaml", "data/sotu-bpe1k.yaml"]}


def variants() -> list[Variant]:
    arms = [
        Variant(kind, {"model": {"position": encode(config_class.examples()[0])}}, description=_summary(config_class))
        for kind, config_class in kinds(PositionConfig).items()
    ]
    more = {
        "kerple-power": ({"position": {"type": "kerple", "form": "power"}}, "KERPLE with distances to a power"),
        "fox": ({"position": "nope", "mixer": "fox"}, "forgetting gates, no other positions"),
        "cope": ({"position": "nope", "mixer": "cope"}, "positions counted by gates on the content"),
        "rope-ssmax": (
            {"position": "rope", "mixer": {"type": "attention", "score_scale": "ssmax"}},
            "RoPE, scores times the logarithm of the number of keys seen",
        ),
    }
    return [*arms, *(Variant(name, {"model": model}, description=text) for name, (model, text) in more.items())]


def _summary(config_class: type) -> str:
    return re.split(r"[(.:]", config_class.__doc__ or "", maxsplit=1)[0].strip()


def axes() -> list[str]:
    return ["model.position", "model.mixer"]


def tuning() -> Tuning:
    return Tuning()


def claims() -> list[Claim]:
    """Rules fixed before the run. What the literature says of encodings that small models cannot tell is only shown."""
    return [
        published.lies_between("t5", "alibi"),
        published.beats_sinusoidal_out_of_range("nope", "sinusoidal"),
        published.is_worst_in_range("nope", "rope"),
        published.is_free("alibi", "nope"),
        *(
            Claim(
                name=f"{name} against {other} {where}",
                statement="Shown and not judged: at this size the order is not settled.",
                test=show(nll(one, multiple) - nll(two, multiple)),
            )
            for name, one, other, two, where, multiple in (
                ("RoPE", "rope", "ALiBi", "alibi", "in range", 1),
                ("KERPLE", "kerple", "ALiBi", "alibi", "at 4L", 4),
                ("FIRE", "fire", "ALiBi", "alibi", "at 4L", 4),
            )
        ),
    ]
