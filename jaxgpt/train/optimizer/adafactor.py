"""Adafactor."""

from __future__ import annotations

import dataclasses

import optax

from jaxgpt.models.mup import Growth
from jaxgpt.registry import register
from jaxgpt.train.optimizer.base import Decays, OptimizerConfig, check_sizes, decay_mask


@register("adafactor")
@dataclasses.dataclass(frozen=True)
class AdafactorConfig(OptimizerConfig):
    """Adafactor: second moments of a matrix from the means of its rows and columns, and no momentum, so little
    memory (Shazeer & Stern 2018, arXiv:1804.04235, algorithm 4). Updates are clipped to a root mean square of one
    (section 6); the layers of a stack are clipped together. Weight decay is AdamW's.

    decay: exponent of the second moments' decay rate, 1 - step^-decay (section 7.2).
    relative: updates are multiples of the root mean square of their parameter (section 8); the learning rate is then
        the paper's alpha, about 0.01.
    factored_from: arrays whose two largest dimensions reach this size are factored along those. Narrow heads have none
        such: their projections keep a second moment for every weight.
    """

    decay: float = 0.8
    relative: bool = False
    factored_from: int = 128
    weight_decay: float = 0.1

    def __post_init__(self):
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1, got {self.decay}")
        if self.factored_from < 1:
            raise ValueError(f"factored_from must be at least 1, got {self.factored_from}")
        check_sizes(self)

    def width_factor(self, growth: Growth) -> float:
        """Relative updates have the deviation of their parameter in them already."""
        return growth.rate / growth.std if self.relative else growth.rate

    def make(self, learning_rate: optax.Schedule, decays: Decays = decay_mask) -> optax.GradientTransformation:
        downhill = optax.adafactor(
            None,
            min_dim_size_to_factor=self.factored_from,
            decay_rate=self.decay,
            multiply_by_parameter_scale=self.relative,
        )
        shrink = optax.add_decayed_weights(-self.weight_decay, decays)  # the update's sign is turned already
        return optax.chain(downhill, shrink, optax.scale_by_learning_rate(learning_rate, flip_sign=False))
