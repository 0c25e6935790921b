import re

import numpy as np
import pytest

from jaxgpt import registry
from jaxgpt.config import decode, encode
from jaxgpt.errors import ConfigError
from jaxgpt.train.schedule import ConstantConfig, CosineConfig, LinearConfig, ScheduleConfig, WSDConfig

KINDS = registry.kinds(ScheduleConfig)
PEAK, STEPS = 0.5, 100


def rates(config, steps=STEPS):
    schedule = config.make(PEAK, steps)
    return np.array([float(schedule(step)) for step in range(steps)])


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_rises_in_equal_steps_from_more_than_nothing_to_the_peak(kind):
    np.testing.assert_allclose(rates(KINDS[kind](warmup=0.1))[:10], PEAK * np.arange(1, 11) / 10, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 100), (1.0, 100), (0.02, 3), (0.5, 1), (0.01, 100)])
def test_no_run_is_too_short(kind, warmup, steps):
    """From the first step to the last the rate is above 0 and never above the peak, which it reaches."""
    found = rates(KINDS[kind](warmup=warmup), steps)
    assert np.all(found > 0)
    assert found.max() == pytest.approx(PEAK, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_config_survives_encoding(kind):
    config = KINDS[kind](warmup=0.3)
    assert decode(ScheduleConfig, encode(config)) == config
    assert kind == "constant" or re.search(r"arXiv:\d{4}\.\d{5}", KINDS[kind].__doc__)


def test_constant_stays():
    np.testing.assert_allclose(rates(ConstantConfig(warmup=0.0)), PEAK, rtol=1e-6)


def test_cosine_falls_to_its_share():
    schedule = CosineConfig(warmup=0.1, final=0.2).make(PEAK, STEPS)
    np.testing.assert_allclose(
        [float(schedule(step)) for step in (10, 55, 100, 500)], [PEAK, 0.6 * PEAK, 0.2 * PEAK, 0.2 * PEAK], rtol=1e-5
    )
    assert np.all(np.diff(rates(CosineConfig(warmup=0.1))[10:]) < 0)


def test_linear_falls_in_equal_steps_to_its_share():
    found = rates(LinearConfig(warmup=0.1, final=0.2))
    np.testing.assert_allclose(found[10:], PEAK * (1 - 0.8 * np.arange(90) / 90), rtol=1e-5)
    schedule = LinearConfig(warmup=0.1).make(PEAK, STEPS)
    assert [float(schedule(step)) for step in (100, 500)] == [0.0, 0.0]


def test_wsd_stays_and_then_falls_in_equal_steps():
    found = rates(WSDConfig(warmup=0.1, decay=0.5, final=0.1))
    np.testing.assert_allclose(found[10:56], PEAK, rtol=1e-6)
    np.testing.assert_allclose(found[55:], PEAK * (1 - 0.9 * np.arange(45) / 45), rtol=1e-5)
    schedule = WSDConfig(warmup=0.1, decay=0.5, final=0.1).make(PEAK, STEPS)
    assert float(schedule(100)) == pytest.approx(0.1 * PEAK)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"type": "constant", "warmup": 5}, "schedule: warmup is a share of the steps, between 0 and 1; got 5"),
        ({"type": "cosine", "final": -1}, "schedule: final is a share of the peak, between 0 and 1; got -1"),
        ({"type": "wsd", "decay": 2}, "schedule: decay is a share of the steps, between 0 and 1; got 2"),
        ({"type": "wsd", "final": 2}, "schedule: final is a share"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        decode(ScheduleConfig, wrong, "schedule")


def test_a_schedule_that_says_nothing_of_its_rest():
    with pytest.raises(TypeError, match=r"must define after_warmup\(\)"):
        ScheduleConfig().make(1.0, 10)
