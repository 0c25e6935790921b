import json
from pathlib import Path

import jax
import pytest

from jaxgpt.data.cache import cache_directory
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


def test_a_processor_that_does_not_say_its_name(monkeypatch):
    def refuse(self):
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert isinstance(environment._processor(), str)
