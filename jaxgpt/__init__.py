"""jaxgpt: which language-model architecture is better, by how much, and how sure are we?

`jaxgpt.load_config(paths, overrides)` is a `RunConfig`; `config.model.make(key)` is its model, and
`jaxgpt.train.loop.train(config, directory)` trains it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxgpt.train.run import load_config

__all__ = ["load_config"]


def __getattr__(name: str) -> Any:
    if name == "load_config":  # on demand: JAX is not needed to list experiments
        from jaxgpt.train.run import load_config

        return load_config
    raise AttributeError(f"module 'jaxgpt' has no attribute {name!r}")
