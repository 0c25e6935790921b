"""Every test runs on the CPU, with silent broadcasting refused."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

os.environ["NPROC"] = "1"  # the size of XLA's thread pool, which training in this process asks for
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background job: tests send it and mean it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests spend their time compiling, and plain code compiles three times as fast. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests
# the code that users run; processes that tests start run that anyway.
if os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "0":
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:  # read once, when the backend starts; what fuses best compiles longest
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false")
        jax.jit(lambda x: x + 1)(0)

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(trylast=True)  # of those that are left
def pytest_collection_modifyitems(config, items):
    """Files that may take longest come first (`--no-loadscope-reorder` keeps it so), or at the end one process would
    work alone."""
    most, usual = Counter(), float(config.getini("timeout"))
    for item in items:
        bound = item.get_closest_marker("timeout")
        most[item.path] += bound.args[0] if bound else usual
    items.sort(key=lambda item: -most[item.path])


MOST_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Compiled programs stay in memory, in pieces, and a process may have 65,530 pieces (vm.max_map_count): what is
    compiled beyond them crashes. So a file that leaves many behind leaves none."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def recipe():
    """`recipe(heading)`: the Python that CONTRIBUTING.md shows under a heading that begins so."""

    def read(heading: str) -> str:
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        found = re.search(rf"^## {heading}.*?```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)
        assert found is not None
        return found[1]

    return read


class Copy:
    """The package in a folder of its own, with one new file, and the tests that find it there."""

    def __init__(self, root: Path, file: str, source: str, tests: str, *more: str):
        self.root = root
        for folder in ("jaxgpt", tests):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "tests/conftest.py", *more):
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        (root / file).write_text(source)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Python with these arguments, in the copy."""
        environment = {**os.environ, "PYTHONPATH": str(self.root), "JAX_PLATFORMS": "cpu"}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def copy_of_the_package(tmp_path_factory):
    """`copy_of_the_package(file, source, tests, *more)`: a `Copy` with `source` in `file`."""
    return lambda *arguments: Copy(tmp_path_factory.mktemp("copy"), *arguments)


@pytest.fixture(scope="session")
def sentence_run(tmp_path_factory):
    """The folder of a run that has learned one sentence by heart."""
    from jaxgpt.config import decode, encode, merge
    from jaxgpt.train.loop import train
    from jaxgpt.train.run import RunConfig

    folder = tmp_path_factory.mktemp("run")
    (folder / "text").mkdir()
    for name in ("a", "b", "c"):
        (folder / "text" / f"{name}.txt").write_text("one two three four five six. " * 200)
    changes = {
        "model": {"num_layers": 1, "num_heads": 2, "width": 32, "position": {"type": "alibi"}, "init_std": 0.1},
        "data": {
            "corpus": {"type": "text", "path": str(folder / "text")},
            "tokenizer": {"type": "byte"},
            "sequence_length": 32,
        },
        "train": {"steps": 120, "batch_size": 8, "learning_rate": 1e-2, "tensorboard": False},
    }
    raw = encode(RunConfig())
    raw["model"].update(vocab_size=None, train_length=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGPT_CACHE", str(folder / "cache"))
        train(decode(RunConfig, merge(raw, changes)), folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def llama_checkpoint(tmp_path_factory):
    """A checkpoint of transformers of a tiny Llama with the byte tokenizer's vocabulary; it has no tokenizer of its
    own. Not to be written to."""
    from jaxgpt.convert import save_pretrained
    from jaxgpt.models.decoder import DecoderConfig
    from jaxgpt.nn.feedforward.gated import GatedConfig
    from jaxgpt.nn.norm import RMSNormConfig

    sizes = {"vocab_size": 257, "train_length": 16, "num_layers": 2, "num_heads": 2, "width": 32, "init_std": 0.3}
    config = DecoderConfig(**sizes, feedforward=GatedConfig(hidden=40), norm=RMSNormConfig(1e-6))
    folder = tmp_path_factory.mktemp("llama")
    save_pretrained(jax.jit(config.make)(jax.random.key(1)), config, folder)
    return folder
