import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxgpt.data.cache import cache_directory
from jaxgpt.errors import ConfigError
from jaxgpt.train import environment
from jaxgpt.train.environment import describe_environment, prepare_jax


def test_cache_home_is_the_variable_or_below_home(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXGPT_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    for nothing in ("", None):
        monkeypatch.setenv("JAXGPT_CACHE", "") if nothing == "" else monkeypatch.delenv("JAXGPT_CACHE")
        assert cache_directory() == Path.home() / ".cache" / "jaxgpt"


def test_another_pool_than_the_one_that_runs_is_refused(monkeypatch):
    jax.devices()
    prepare_jax(1)
    with pytest.raises(RuntimeError, match="JAX is already running with NPROC=1, but the run asks for threads=3"):
        prepare_jax(3)
    monkeypatch.delenv("NPROC")
    with pytest.raises(RuntimeError, match="NPROC=unset"):
        prepare_jax(1)


def test_before_jax_runs_the_pool_is_set(monkeypatch):
    monkeypatch.setattr(environment.xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setenv("NPROC", "7")
    prepare_jax(2)
    assert environment.os.environ["NPROC"] == "2"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "--xla_gpu_deterministic_ops=true"),
        ("", "--xla_gpu_deterministic_ops=true"),
        ("--xla_a=1  --xla_b", "--xla_a=1 --xla_b --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops --xla_a=1", "--xla_gpu_deterministic_ops --xla_a=1"),
        ("--xla_gpu_deterministic_ops_too=0", "--xla_gpu_deterministic_ops_too=0 --xla_gpu_deterministic_ops=true"),
    ],
)
def test_the_flag_of_deterministic_kernels_is_put_behind_the_users(monkeypatch, before, after):
    monkeypatch.setattr(environment.xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setenv("XLA_FLAGS", before or "")
    if before is None:
        monkeypatch.delenv("XLA_FLAGS")
    prepare_jax(1)
    assert environment.os.environ.get("XLA_FLAGS") == before
    prepare_jax(1, deterministic=True)
    assert environment.os.environ["XLA_FLAGS"] == after
    described = describe_environment()
    assert described["variables"]["XLA_FLAGS"] == after
    assert described["matmul_precision"] == jax.config.values["jax_default_matmul_precision"]


def test_a_flag_that_says_the_contrary_is_refused(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true --xla_gpu_deterministic_ops=false")
    with pytest.raises(ConfigError, match="deterministic: XLA_FLAGS has --xla_gpu_deterministic_ops=false; leave one"):
        prepare_jax(1, deterministic=True)


def test_a_gpu_that_runs_without_the_flag_is_refused_and_a_cpu_needs_none(monkeypatch):
    jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "")
    prepare_jax(1, deterministic=True)
    assert not environment.os.environ["XLA_FLAGS"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(RuntimeError, match="already running without --xla_gpu_deterministic_ops=true"):
        prepare_jax(1, deterministic=True)


def test_the_installed_compiler_knows_the_flag_and_a_run_writes_it_down(overrides, tmp_path):
    """An unknown one would end the process."""
    settings = overrides("train.steps=1", "train.deterministic=true")
    command = [sys.executable, "-m", "jaxgpt.train", "--run-dir", str(tmp_path / "run"), "--set", *settings]
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}
    subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    described = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert described["variables"] == {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false --xla_gpu_deterministic_ops=true"}


def test_compilations_are_kept_unless_the_user_says_where(tmp_path, monkeypatch):
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("JAXGPT_CACHE", str(tmp_path))
        prepare_jax(1)
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "xla")
        jax.config.update("jax_compilation_cache_dir", "mine")
        prepare_jax(1)
        assert jax.config.values["jax_compilation_cache_dir"] == "mine"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_description_of_what_numbers_depend_on():
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert found["nproc"] == "1"
    assert {"jaxgpt", "jax", "jaxlib", "flax", "numpy"} <= found["packages"].keys()
    assert all(found["packages"].values())
    assert found["processor"]
    assert found["devices"]


def test_what_a_run_was_trained_with_before_is_kept(tmp_path, monkeypatch):
    def record(**found):
        monkeypatch.setattr(environment, "describe_environment", lambda: found)
        environment.record_environment(tmp_path)
        return json.loads((tmp_path / "environment.json").read_text())

    assert record(jax="1") == record(jax="1") == {"jax": "1"}
    assert record(jax="2") == {"jax": "2", "earlier": [{"jax": "1"}]}
    assert record(jax="1") == {"jax": "1", "earlier": [{"jax": "1"}, {"jax": "2"}]}
    assert record(jax="1") == {"jax": "1", "earlier": [{"jax": "1"}, {"jax": "2"}]}
    (tmp_path / "environment.json").write_text("[")
    assert record(jax="3") == {"jax": "3"}


def test_a_processor_that_does_not_say_its_name(monkeypatch):
    def refuse(self):
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert isinstance(environment._processor(), str)
