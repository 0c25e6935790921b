"""`python experiments/benchmark_decode.py`: tokens per second of greedy decoding, beside transformers.

A model of the laptop's size in the shape of Llama, so that transformers can compute it with the same weights (extra
`hf`); one prompt, turns taken side by side. The second table shows the time per token along one long continuation: it
should not grow.
"""

# pyright: reportMissingImports=false
# (torch and transformers come with the extra `hf` only)

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxgpt.convert import save_pretrained
from jaxgpt.generate.decode import CHUNK, generate, stream
from jaxgpt.generate.filters import Sampling
from jaxgpt.models.decoder import Decoder, DecoderConfig
from jaxgpt.nn.feedforward.gated import GatedConfig
from jaxgpt.nn.norm import RMSNormConfig

GREEDY = Sampling(temperature=0.0)
PROMPT = list(range(1, 33))


def config(length: int) -> DecoderConfig:
    """The laptop's sizes: 4 layers, 4 heads, width 128, vocabulary 1024."""
    return DecoderConfig(
        vocab_size=1024,
        train_length=length,
        num_layers=4,
        num_heads=4,
        width=128,
        feedforward=GatedConfig(),
        norm=RMSNormConfig(),
        init_std=0.06,
    )


def theirs(model: Decoder, settings: DecoderConfig, threads: int) -> Callable[[int], list[int]]:
    """Greedy continuation by transformers, with the weights of `model`."""
    warnings.simplefilter("ignore")
    import torch
    from transformers import AutoModelForCausalLM

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, settings, folder)
        other: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.tensor([PROMPT])

    def run(count: int) -> list[int]:
        with torch.no_grad():
            out = other.generate(tokens, max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=None)
        return out[0, len(PROMPT) :].tolist()

    return run


def compare(count: int, rounds: int, threads: int) -> None:
    settings = config(4096)
    model = jax.jit(settings.make)(jax.random.key(0))

    def ours(count: int) -> list[int]:
        return generate(model, [PROMPT], count)[0]

    other = theirs(model, settings, threads)
    same = ours(count) == other(count)  # and both are warm
    speeds: dict[str, list[float]] = {"jaxgpt": [], "transformers": []}
    for _ in range(rounds):
        for name, run in (("jaxgpt", ours), ("transformers", other)):
            begin = time.perf_counter()
            run(count)
            speeds[name].append(count / (time.perf_counter() - begin))
    ratios = [one / two for one, two in zip(*speeds.values(), strict=True)]
    print(f"{count} tokens behind a prompt of {len(PROMPT)}, {rounds} turns each; the same tokens: {same}")
    for name, values in speeds.items():
        print(f"  {name:14}{statistics.median(values):8.0f} tokens/s")
    print(f"  ratio         {statistics.median(ratios):8.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def growth(length: int) -> None:
    """Time per token along one continuation, in a cache of `length` tokens."""
    settings = config(length)
    model = jax.jit(settings.make)(jax.random.key(0))
    count = length - len(PROMPT)
    generate(model, [PROMPT], count)
    times = []
    begin = time.perf_counter()
    for _ in stream(model, [PROMPT], count, GREEDY):
        now = time.perf_counter()
        times.append((now - begin) / CHUNK)
        begin = now
    times = times[1:]  # the first holds the prompt
    parts = np.array_split(np.array(times), 8)
    print(f"milliseconds per token along {length} tokens of cache, by eighths:")
    print("  " + "  ".join(f"{1000 * np.median(part):.3f}" for part in parts))


def main() -> int:
    parser = argparse.ArgumentParser(description="Time greedy decoding beside transformers.")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; NPROC sets those of XLA")
    parser.add_argument("--length", type=int, default=4096, help="of the cache in the second table")
    options = parser.parse_args()
    compare(options.tokens, options.rounds, options.threads)
    growth(options.length)
    return 0


if __name__ == "__main__":
    sys.exit(main())
