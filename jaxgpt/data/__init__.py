"""Text to batches: corpora, tokenizers, memory-mapped tokens, Grain pipelines with exact resume.

`jaxgpt.data.dataset.prepare(DataConfig(...))` gives a `Dataset`; `jaxgpt.data.pipeline.batches(dataset.train, ...)`
iterates over it. Nothing here imports jax, and grain (which does) is imported where a pipeline is built.
"""
