"""Averages of weights: what they are, and that they are what is validated, kept and evaluated."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgpt.errors import ConfigError, Interrupted
from jaxgpt.nn.params import flatten
from jaxgpt.nn.router.base import Statistic
from jaxgpt.train.average import moving_average
from jaxgpt.train.checkpoint import Checkpoints
from jaxgpt.train.loop import _Loop, train
from jaxgpt.train.start import load_model

WAYS = {"ema": ["train.ema=0.9"], "schedule_free": ["train.optimizer.type=schedule_free", "train.schedule=constant"]}


def test_a_moving_average_begins_fast_and_takes_what_is_no_parameter_as_it_is():
    average = {"weight": nnx.Param(jnp.zeros(2)), "count": Statistic(jnp.zeros(2))}
    expected = 0.0
    for step in range(20):
        now = {"weight": nnx.Param(jnp.full(2, step + 1.0)), "count": Statistic(jnp.full(2, step + 1.0))}
        average = moving_average(0.5, average, now, jnp.int32(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
        np.testing.assert_allclose(average["weight"][...], expected, rtol=1e-5)
        np.testing.assert_array_equal(average["count"][...], step + 1)


def arrays(directory, *prefixes):
    checkpoints = Checkpoints(directory / "checkpoints")
    found = checkpoints.arrays(*prefixes)
    checkpoints.close()
    return found


@pytest.mark.parametrize("way", WAYS)
def test_the_average_is_validated_kept_and_evaluated(tiny, tmp_path, way, monkeypatch):
    seen = []
    validate = _Loop.validate
    monkeypatch.setattr(_Loop, "validate", lambda loop, model: seen.append(model) or validate(loop, model))
    result = train(tiny(*WAYS[way]), tmp_path / "run")
    average, trained = arrays(tmp_path / "run", "average"), arrays(tmp_path / "run", "model")
    assert average.keys() == trained.keys()
    assert any(np.any(average[name] != trained[name]) for name in average)
    loaded, _ = load_model(tmp_path / "run")
    for model in (result.model, loaded, seen[-1]):
        for name, array in flatten(model).items():
            np.testing.assert_array_equal(array, average[name], err_msg=name)


OPTIMIZERS = {
    kind: [f"train.optimizer.type={kind}", "train.groups=[{match: ['*/scale', embedding], learning_rate: 0.5}]"]
    for kind in ("lion", "muon", "adafactor")
}


MUP = ["model.mup_base.width=16", "train.optimizer.type=muon", *OPTIMIZERS["muon"][1:]]


@pytest.mark.parametrize("settings", [*WAYS.values(), *OPTIMIZERS.values(), MUP], ids=[*WAYS, *OPTIMIZERS, "mup"])
def test_it_resumes_bit_for_bit(tiny, tmp_path, settings, interrupt_after, monkeypatch):
    train(tiny(*settings), tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(Interrupted):
            train(tiny(*settings), tmp_path / "run")
    train(tiny(*settings), tmp_path / "run")
    again = arrays(tmp_path / "run")
    for name, array in arrays(tmp_path / "whole").items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.ema=1.0"], "ema is a decay, above 0 and below 1, or null; got 1.0"),
        (["train.optimizer.type=schedule_free"], "schedule: the optimizer averages instead of lowering the rate; set"),
        (["train.ema=0.9", *WAYS["schedule_free"]], "ema: the optimizer has an average of its own; leave one of them"),
    ],
)
def test_mistakes_are_named(tiny, settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny(*settings)


def test_given_weights_begin_an_average_of_their_own(tiny, tmp_path):
    """Two copies, of which a step may overwrite one."""
    old = tiny("train.steps=2")
    train(old, tmp_path / "old")
    config = tiny("train.steps=2", "train.ema=0.9", f"start.folder={tmp_path / 'old'}", f"start.hash={old.hash}")
    train(config, tmp_path / "new")
    average, trained = arrays(tmp_path / "new", "average"), arrays(tmp_path / "new", "model")
    assert any(np.any(average[name] != trained[name]) for name in trained)
