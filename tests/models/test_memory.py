"""Encodings that add to the scores need little memory far beyond the training length: 4096 tokens, trained at 256."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = """
import sys
import jax, jax.numpy as jnp, jaxgpt
overrides = [f"model.position.type={sys.argv[1]}", "model.vocab_size=1024", "data.sequence_length=256"]
config = jaxgpt.load_config("configs/model/laptop.yaml", overrides)
model = jax.jit(config.model.make)(jax.random.key(0))
loss = jax.jit(lambda model, tokens: model(tokens).logits.sum())(model, jnp.ones((1, 16 * 256), jnp.int32))
assert jnp.isfinite(loss)
# of this program alone: what getrusage calls the peak begins at the size of the process that started it
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
@pytest.mark.parametrize("kind", ["alibi", "t5", "kerple", "fire", "sandwich"])
def test_sixteen_training_lengths_fit_in_two_gigabytes(kind):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2 * 2**30
