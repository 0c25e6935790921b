"""The benchmark at a size that takes no time."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import benchmark

    tiny = benchmark.Size(num_layers=2, width=16, num_heads=2, vocab_size=50, length=12, batch=3)
    monkeypatch.setattr(benchmark, "SIZES", {"tiny": tiny})
    monkeypatch.setattr(benchmark, "PEAK_SIZE", 64)
    monkeypatch.setattr(benchmark, "prepare_jax", lambda threads: None)  # the tests' pool is running already
    yield benchmark
    for name in ("benchmark", "benchmark_torch"):
        sys.modules.pop(name, None)


def test_measures_without_torch(benchmark, tmp_path, capsys):
    path = tmp_path / "times.json"
    assert (
        benchmark.main(["--rounds", "3", "--threads", "1", "--sizes", "tiny", "--no-torch", "--json", str(path)]) == 0
    )
    (result,) = json.loads(path.read_text())
    assert len(result["jaxgpt"]) == len(result["peak"]) == 3
    assert min(result["jaxgpt"]) > 0
    assert min(result["peak"]) > 0
    assert result["torch"] is None
    assert result["tokens"] == 36
    shown = capsys.readouterr().out
    assert "tokens/s" in shown
    assert "PyTorch was not measured" in shown


def test_ratio_is_taken_turn_by_turn(benchmark):
    result = benchmark.Result("tiny", 1, [1e9], [2.0, 3.0, 8.0], [1.0, 3.0, 2.0], 10, 10, 1.0, 1.0)
    assert result.ratios() == [2.0, 1.0, 4.0]
    assert benchmark._ratio(result.ratios()) == "2.00 (1.00 to 4.00)"


def test_wrong_numbers_of_rounds_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["--rounds", "0"])
    assert stopped.value.code == 2
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # what torch warns of at import is torch's business
def test_torch_twin_computes_the_same_loss_and_trains_alike(benchmark):
    size = benchmark.SIZES["tiny"]
    ours = benchmark.JaxTrainer(size)
    # Biases start at 0 and gains at 1, where a mistake in loading them would not show.
    noise = np.random.default_rng(1)
    model = jax.tree.map(lambda x: x + 0.1 * noise.standard_normal(x.shape).astype(np.float32), ours.state.model)
    ours.state = benchmark.dataclasses.replace(ours.state, model=model)
    loss, step = benchmark.torch_trainer(size, ours.batch, ours.parameters(), threads=1)
    assert loss == pytest.approx(ours.loss(), rel=1e-5)
    losses = [(ours.step(), step()) for _ in range(5)]
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-4)
    assert losses[-1][0] < losses[0][0]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_another_model_in_torch_is_refused(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "torch_trainer", lambda *_: (1.0, lambda: None))
    with pytest.raises(SystemExit, match="not the same model"):
        benchmark.measure("tiny", benchmark.SIZES["tiny"], 1, 1, with_torch=True)
