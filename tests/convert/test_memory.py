"""Loading needs hardly more memory than what is loaded (`pytest -m slow`)."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxgpt.convert import save_pretrained
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.norm import RMSNormConfig
from jaxgpt.nn.params import flatten, unflatten

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CONFIG = DecoderConfig(
    vocab_size=16_000,
    train_length=512,
    num_layers=8,
    num_heads=16,
    num_kv_heads=4,
    width=768,
    feedforward=GatedConfig(hidden=3072),
    norm=RMSNormConfig(),
    tie_embeddings=False,
)
LOAD = """
import sys
import jax
jax.devices()
from jaxgpt.convert import load_pretrained
def peak():  # of this program alone: what getrusage calls the peak begins at the size of the process that started it
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
model, _ = load_pretrained(sys.argv[1])
jax.block_until_ready(jax.tree.leaves(model))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
@pytest.mark.parametrize("shard_bytes", [10**10, 10**8])
def test_loading_stays_under_1_3_times_the_size(tmp_path, shard_bytes):
    """Pages of the files count, too: they are given back as tensors are taken over."""
    abstract = jax.eval_shape(CONFIG.make, jax.random.key(0))
    arrays = {path: np.full(leaf.shape, 0.01, np.float32) for path, leaf in flatten(abstract).items()}
    save_pretrained(unflatten(abstract, arrays), CONFIG, tmp_path, shard_bytes=shard_bytes)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert size > 3 * 10**8
    done = subprocess.run([sys.executable, "-c", LOAD, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.3 * size
