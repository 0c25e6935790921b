"""Arms made equally large: each one's feed-forward width follows the first variant's parameters or FLOPs.

An arm that has more to train elsewhere (a table of positions, gates in its attention) gets a narrower feed-forward
layer, and the reverse, so that a difference in loss is not one of size. What is left is less than one hidden unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from jaxgpt.errors import ConfigError

if TYPE_CHECKING:
    from jaxgpt.models.base import ModelConfig

Match = Literal["parameters", "flops"]
MATCHES: tuple[Match, ...] = get_args(Match)


def measure(model: ModelConfig, match: Match, sequence_length: int) -> int:
    """Trained parameters, or FLOPs to train on one token of a sequence of that length. Nothing is computed.

    Raises ConfigError where the model's vocabulary is not known yet.
    """
    import jax

    from jaxgpt.models.base import parameter_count
    from jaxgpt.train.run import abstract_key

    if model.vocab_size is None:
        raise ConfigError("match: the tokenizer's size is known only after its training; give model.vocab_size")
    if match == "flops":
        return model.flops_per_token(sequence_length)
    return parameter_count(jax.eval_shape(model.make, abstract_key()))


def matching_width(model: ModelConfig, match: Match, sequence_length: int, target: int) -> int | None:
    """The feed-forward width that brings `model` nearest to `target`; None if no other comes nearer than its own.

    Raises ConfigError where even a width of 1 is too large, or as `measure` does.
    """
    narrow, wider = (measure(model.with_hidden(hidden), match, sequence_length) for hidden in (1, 2))
    unit = wider - narrow  # both measures are linear in the width
    if abs(measure(model, match, sequence_length) - target) <= unit / 2:
        return None
    if target < narrow - unit / 2:
        raise ConfigError(
            f"match: {narrow:,} {match} are left with a feed-forward width of 1, more than the {target:,} of the first "
            "variant; make it smaller otherwise, or the first one larger"
        )
    return round((target - narrow) / unit) + 1
