"""Forecasts: what they count, on this machine's own devices; and, with the compilers of the extras `tpu` and `cuda`,
for accelerators that are not here."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.models.base import parameter_count
from jaxgpt.parallel.flops import matrix_flops
from jaxgpt.parallel.hardware import Hardware
from jaxgpt.parallel.mesh import MeshConfig
from jaxgpt.parallel.program import Traffic
from jaxgpt.parallel.targets import Target, find_target
from jaxgpt.train import __main__ as command
from jaxgpt.train.forecast import Forecast, forecast
from jaxgpt.train.forecast_table import forecast_table
from jaxgpt.train.run import abstract_key, load_config

SMALL = [
    "model.vocab_size=512", "model.width=256", "model.num_heads=4", "model.num_layers=4", "data.sequence_length=256",
    "data.tokenizer.vocab_size=512", "train.batch_size=16",
]  # fmt: skip
SLOW = Hardware(flops=1e12, memory=10 * 2**30, memory_bandwidth=1e11, interconnect_bandwidth=1e10)


def config(*overrides):
    return load_config(overrides=[*SMALL, *overrides])


def here():
    return Target("here", jax.devices()[:1], SLOW)


def tokens(config):
    return config.train.batch_size * config.data.sequence_length


def test_a_step_is_counted_and_its_state_weighed():
    found = forecast(config("model.layers=unroll"), here())
    parameters = parameter_count(jax.eval_shape(config().model.make, abstract_key()))
    assert found.memory["parameters"] == 4 * parameters
    assert found.memory["optimizer"] == pytest.approx(2 * 4 * parameters, rel=1e-3)
    assert found.memory["batch"] == 4 * 4 * 16 * 256
    assert found.memory["temporary"] > 0
    assert found.model_flops == config().model.flops_per_token(256) * tokens(config())
    assert found.flops <= found.model_flops  # on CPUs half of the pairs that the mask hides are left out
    assert found.traffic.sent == {}
    assert not found.least
    assert found.fits


def test_what_is_computed_again_costs_more_and_needs_less():
    kept, again = (forecast(config("model.layers=scan", f"model.remat={remat}"), here()) for remat in ("false", "true"))
    assert again.flops > 1.2 * kept.flops
    assert again.memory["temporary"] < kept.memory["temporary"]


def test_an_average_is_weighed_too():
    found = forecast(config("train.ema=0.9"), here())
    assert found.memory["average"] == found.memory["parameters"]


def test_rows_that_the_devices_cannot_share_are_an_error():
    with pytest.raises(ConfigError, match="3 devices cannot share 16 rows"):
        forecast(config(), Target("three", jax.devices()[:1] * 3, SLOW))


def made_up(**changes):
    shared = {"mesh": MeshConfig(fsdp=4), "hardware": SLOW, "memory": {"parameters": 2**30}, "flops": 2e12}
    sent = Traffic({"all-gather": 3e9}, 1e11)
    return Forecast(**{**shared, "model_flops": 1e12, "traffic": sent, "least": 2e9, **changes})


def test_copies_share_rows_too():
    eight = Target("here", 8 * jax.devices()[:1], SLOW)
    with pytest.raises(ConfigError, match=r"8 devices cannot share 12 rows .*; give another batch size"):
        forecast(config("train.compile=pmap", "train.batch_size=12"), eight)


def test_the_slowest_part_is_the_time_of_a_step():
    found = made_up()
    assert found.seconds == {"compute": 2.0, "memory": 1.0, "network": 0.3}
    assert (found.bound, found.roofline, found.share) == ("compute", 2.0, 0.5)
    assert made_up(flops=1e11).bound == "memory"


def test_what_does_not_fit_says_so():
    assert made_up().fits
    assert not made_up(memory={"temporary": 10 * 2**30}).fits  # all of it: the runtime wants some too
    assert not made_up(refused="uses 20G of 16G").fits


def test_the_table_says_all_of_it(capsys):
    from rich.console import Console

    table = forecast_table(here(), {"one": made_up(), "two": made_up(refused="uses 20G of 16G"), "three": "no mesh"})
    Console(width=200).print(table)
    text = capsys.readouterr().out
    assert "here: 1 device of 10 GiB" in text
    for part in ("4 fsdp", "1.00: parameters 1.00", "3.00: all-gather 3.00", "compute 2000.0 > memory", "50%"):
        assert part in text
    assert re.search(r"two .* no .* uses 20G of 16G", text)
    assert "no mesh" in text


# --------------------------------------------------------------------------------------- compilers of what is not here


@pytest.mark.compile
@pytest.mark.parametrize(
    "name", ["gpu:h100:1", "gpu:a100:8", "gpu:h200:16", "gpu:b200:2", "tpu:v5e:1x1", "tpu:v6e:2x2"]
)
def test_a_step_compiles_for(name):
    """Attention by the platform's own kernel, with all that a step is made of."""
    target = find_target(name)
    found = forecast(config("model.compute_dtype=bfloat16"), target)
    assert not found.refused
    assert found.fits
    assert found.flops * len(target.devices) == pytest.approx(found.model_flops * len(target.devices), rel=0.1)
    assert bool(found.sent) == (len(target.devices) > 1)


@pytest.mark.compile
@pytest.mark.parametrize("name", ["gpu:h100:8", "tpu:v5e:2x4"])
def test_parameters_divided_cost_what_they_must(name):
    """Wide enough that parameters are what is sent: within 1.3 of the least."""
    wide = config("model.width=1024", "model.num_heads=16", "model.compute_dtype=bfloat16", "model.remat=true")
    found = forecast(wide, find_target(name))
    assert found.least is not None
    assert 0.9 * found.least <= found.sent <= 1.3 * found.least


@pytest.mark.compile
def test_attention_without_scores_needs_the_memory_of_its_length():
    """cuDNN's kernel against the dense form: a fraction of the memory for a few more operations."""
    target = find_target("gpu:h100:1")
    rows = ["data.sequence_length=2048", "train.batch_size=4", "model.compute_dtype=bfloat16"]
    kernel = forecast(config(*rows), target)
    dense = forecast(config(*rows, "model.mixer.implementation=dense"), target)
    assert kernel.memory["temporary"] < 0.5 * dense.memory["temporary"]
    assert dense.flops < kernel.flops < 1.2 * dense.flops  # it computes scores again for the gradient


@pytest.mark.compile
def test_kernels_of_attention_count_all_pairs():
    q = jnp.zeros((2, 128, 4, 64), jnp.bfloat16)
    pairs = 2 * 4 * 128 * 128 * 64

    def attend(q):
        return jax.nn.dot_product_attention(q, q, q, is_causal=True, implementation="cudnn").astype(jnp.float32).sum()

    assert matrix_flops(jax.make_jaxpr(attend)(q)) == 4 * pairs
    assert matrix_flops(jax.make_jaxpr(jax.grad(attend))(q)) == 14 * pairs


@pytest.mark.compile
def test_what_a_device_cannot_hold_is_refused_and_not_an_error():
    much = config("train.batch_size=4096", "data.sequence_length=1024", "model.mixer.implementation=dense")
    found = forecast(dataclasses.replace(much), find_target("tpu:v5e:1x1"))
    assert found.refused
    assert not found.fits


@pytest.mark.compile
def test_the_command_line_shows_it(capsys):
    arguments = ["--plan", "gpu:h100:2", "--set", *SMALL, "model.compute_dtype=bfloat16"]
    assert command.main(arguments) == 0
    text = capsys.readouterr().out
    assert "gpu:h100:2: 2 devices of 80 GiB" in text
    assert "2 fsdp" in text
