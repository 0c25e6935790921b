"""Learning-rate schedules: step -> learning rate."""

from __future__ import annotations

import dataclasses

import optax

from jaxgpt.registry import register, slot


@slot("schedule", package="jaxgpt.train.schedule")
@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves over a run: linear warm-up first, then what the kind says."""

    warmup: float = 0.02  # share of the steps

    def __post_init__(self):
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is a share of the steps, between 0 and 1; got {self.warmup}")

    def make(self, peak: float, steps: int) -> optax.Schedule:
        """The learning rate as a function of the step, for a run of `steps` with the given peak."""
        warmup_steps = round(self.warmup * steps)
        after = self.after_warmup(peak, max(steps - warmup_steps, 1))
        if warmup_steps == 0:
            return after
        # From peak / warmup_steps, not from 0: a first step of size nothing would be wasted.
        start = optax.linear_schedule(peak / warmup_steps, peak, max(warmup_steps - 1, 1))
        return optax.join_schedules([start, after], [warmup_steps])

    def after_warmup(self, peak: float, steps: int) -> optax.Schedule:
        raise TypeError(f"{type(self).__qualname__} must define after_warmup()")


def _check_final(final: float) -> None:
    if not 0 <= final <= 1:
        raise ValueError(f"final is a share of the peak, between 0 and 1; got {final}")


@register("constant")
@dataclasses.dataclass(frozen=True)
class ConstantConfig(ScheduleConfig):
    """The peak until the end."""

    def after_warmup(self, peak: float, steps: int) -> optax.Schedule:
        return optax.constant_schedule(peak)


@register("cosine")
@dataclasses.dataclass(frozen=True)
class CosineConfig(ScheduleConfig):
    """Half a cosine down to a share of the peak (Loshchilov & Hutter 2016, arXiv:1608.03983, equation 5)."""

    final: float = 0.1  # share of the peak

    def __post_init__(self):
        super().__post_init__()
        _check_final(self.final)

    def after_warmup(self, peak: float, steps: int) -> optax.Schedule:
        return optax.cosine_decay_schedule(peak, steps, alpha=self.final)


@register("linear")
@dataclasses.dataclass(frozen=True)
class LinearConfig(ScheduleConfig):
    """Straight down to a share of the peak (Bergsma et al. 2025, arXiv:2502.15938, who go to zero)."""

    final: float = 0.0  # share of the peak

    def __post_init__(self):
        super().__post_init__()
        _check_final(self.final)

    def after_warmup(self, peak: float, steps: int) -> optax.Schedule:
        return optax.linear_schedule(peak, self.final * peak, steps)


@register("wsd")
@dataclasses.dataclass(frozen=True)
class WSDConfig(ScheduleConfig):
    """Warm-up, stable, decay (Hu et al. 2024, MiniCPM, arXiv:2404.06395): the peak, then linearly down at the end."""

    decay: float = 0.2  # share of the steps after warm-up that decay
    final: float = 0.0  # share of the peak

    def __post_init__(self):
        super().__post_init__()
        _check_final(self.final)
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is a share of the steps, between 0 and 1; got {self.decay}")

    def after_warmup(self, peak: float, steps: int) -> optax.Schedule:
        decay_steps = max(round(self.decay * steps), 1)
        down = optax.linear_schedule(peak, self.final * peak, decay_steps)
        return optax.join_schedules([optax.constant_schedule(peak), down], [steps - decay_steps])
