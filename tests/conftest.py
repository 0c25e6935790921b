"""Every test runs on the CPU, with silent broadcasting refused."""

from __future__ import annotations

import os
import signal

os.environ["NPROC"] = "1"  # the size of XLA's thread pool, which training in this process asks for
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background job: tests send it and mean it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests spend their time compiling, and plain code compiles three times as fast. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests
# the code that users run; processes that tests start run that anyway.
jax.config.update("jax_disable_most_optimizations", os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "0")
