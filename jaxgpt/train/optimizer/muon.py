"""Muon."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import optax
from optax import contrib

from jaxgpt.models.mup import Growth
from jaxgpt.nn.params import sides
from jaxgpt.registry import register
from jaxgpt.train.optimizer.adamw import AdamWConfig
from jaxgpt.train.optimizer.base import Decays, OptimizerConfig, check_betas, check_sizes, decay_mask, per_parameter


@register("muon")
@dataclasses.dataclass(frozen=True)
class MuonConfig(OptimizerConfig):
    """Muon: the momentum of every matrix is replaced by the nearest orthogonal one (Jordan et al. 2024), scaled so that
    its root mean square is AdamW's, whose learning rate and weight decay then fit (Liu et al. 2025, arXiv:2502.16982,
    equation 4). What is no matrix, embeddings and the head are moved by AdamW.

    Matrices are those between the inputs and the outputs of a layer, one for each layer of a stack and each expert; of
    an attention's projections, all heads' together.

    steps: of the Newton-Schulz iteration.
    scale: root mean square of an update, before the learning rate.
    adamw: what moves the rest.
    """

    beta: float = 0.95
    steps: int = 5
    scale: float = 0.2
    weight_decay: float = 0.1
    adamw: AdamWConfig = AdamWConfig()

    def __post_init__(self):
        check_betas(self, "beta")
        check_sizes(self)
        if self.steps < 1 or self.scale <= 0:
            raise ValueError("steps must be at least 1 and scale positive")

    def make(self, learning_rate: optax.Schedule, decays: Decays = decay_mask) -> optax.GradientTransformation:
        muon = contrib.muon(
            learning_rate,
            ns_steps=self.steps,
            beta=self.beta,
            weight_decay=self.weight_decay,
            weight_decay_mask=decays,
            consistent_rms=self.scale,
            muon_weight_dimension_numbers=lambda tree: per_parameter(tree, matrix),
        )
        rest = self.adamw.make(learning_rate, decays)
        return optax.partition({"muon": muon, "adamw": rest}, lambda tree: per_parameter(tree, _mover))

    def width_factor(self, growth: Growth) -> float:
        """All singular values of an update are about as large: `scale` times the root of its longer side. They should
        be as sqrt(outputs / inputs) (Yang et al. 2023, arXiv:2310.17813, condition 1), so the learning rate of a matrix
        that is m times as wide on both sides falls by sqrt(m) only, where AdamW's falls by m: its updates have few
        large singular values, which grow with m."""

        def spectral(inputs: int, outputs: int) -> float:
            return math.sqrt(outputs / inputs / max(inputs, outputs))

        return spectral(growth.inputs, growth.outputs) / spectral(growth.base_inputs, growth.base_outputs)


def matrix(path: str, parameter: Any) -> contrib.MuonDimensionNumbers | None:
    """Which dimensions of a parameter are inputs and which outputs; None where it is no matrix."""
    found = sides(parameter)
    return None if found is None else contrib.MuonDimensionNumbers(*found)


def _mover(path: str, parameter: Any) -> str:
    return "adamw" if matrix(path, parameter) is None else "muon"
